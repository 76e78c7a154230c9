"""The product of L random layers as free probability sees it: what is multiplied, how often, at which length."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jaxinit._core import checks
from jaxinit.activations import Activation, get
from jaxinit.activations._catalogue import resolve
from jaxinit.meanfield import STATUS, fixed_point
from jaxinit.meanfield._fixed_point import _homogeneity
from jaxinit.spectra._slopes import SlopeLaw, slope_law

ENSEMBLES = ("gaussian", "orthogonal")
OUTPUTS = ("activations", "preactivations")


class Chain(NamedTuple):
    """J J^T of `slopes` matrices D and `depth` matrices W, all free of each other.

    With m = E[t / (y - t)], t = phi'^2, the moment generating function of J J^T takes the value m at

        z = (1 + m) / m * (m y / (1 + m))^slopes * (sigma_w^2 (1 + m))^depth       Gaussian W
        z = (1 + m) / m * (m y / (1 + m))^slopes * (sigma_w^2)^depth               orthogonal W

    since S-transforms multiply and m y / (1 + m) = 1 / S of D^2 (Pennington, Schoenholz & Ganguli 2017).
    """

    activation: Activation
    law: SlopeLaw
    slopes: int
    depth: int
    log_weight_variance: float
    gaussian: bool
    q: float

    @property
    def log_mean(self) -> float:
        """log of the mean squared singular value."""
        return self.slopes * math.log(self.law.moments[0]) + self.depth * self.log_weight_variance

    @property
    def relative_variance(self) -> float:
        """Variance of the squared singular values in units of their squared mean."""
        return self.slopes * self.law.spread + (self.depth if self.gaussian else 0)

    def log_z(self, log_y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(log z, its derivative with respect to log y, m) at y = exp(log_y) in the closed upper half plane.

        Continuous there: m is in the lower half plane, 1 + m too, and arg z = pi on the negative axis.
        """
        y = np.exp(log_y)
        m, one_plus, slope = self.law.transform(y)
        # A product of no D is written with D = 1 once, whose factor is 1.
        count = max(self.slopes, 1)
        shared = 1 - count + (self.depth if self.gaussian else 0)
        log_m = np.log(-m) - 1j * np.pi
        value = shared * np.log(one_plus) + (count - 1) * log_m + count * log_y
        steepness = y * slope * (shared / one_plus + (count - 1) / m) + count
        return value + self.depth * self.log_weight_variance, steepness, m

    def atoms(self) -> list[tuple[float, float]]:
        """(log location, mass) of the atoms of J J^T, ascending: -inf is a singular value of 0.

        Free multiplicative convolution keeps the largest mass at 0, and a mass at a b > 0 only as far as the
        masses at a and at b exceed 1 together (Belinschi 2003).
        """
        out = []
        if self.law.zero_mass > 0.0 and self.slopes:
            out.append((-math.inf, self.law.zero_mass))
        if not self.gaussian:
            if not self.slopes:
                return [(self.depth * self.log_weight_variance, 1.0)]
            for mass, point in zip(self.law.masses, self.law.points, strict=True):
                left = 1.0 - self.slopes * (1.0 - mass)
                if point > 0.0 and left > 1e-9:
                    place = self.slopes * math.log(point) + self.depth * self.log_weight_variance
                    out.append((place, float(min(left, 1.0))))
        return out


def chain(
    where: str,
    activation: Any,
    depth: int,
    weight_variance: float,
    bias_variance: float,
    ensemble: str,
    output: str,
    q: float | None,
) -> Chain:
    """Checked arguments to a Chain."""
    activation = resolve(where, activation)
    depth = checks.integer(where, "depth", depth, at_least=1, at_most=checks.MOST)
    sw2 = float(checks.number(where, "weight_variance", weight_variance, above=0.0))
    sb2 = float(checks.number(where, "bias_variance", bias_variance, at_least=0.0))
    checks.choice(where, "ensemble", ensemble, ENSEMBLES)
    checks.choice(where, "output", output, OUTPUTS)
    if q is not None:
        length = float(checks.number(where, "q", q, at_least=0.0))
    elif _homogeneity(activation) is not None:
        length = 1.0  # the law of phi' does not depend on it
    else:
        point = fixed_point(activation, sw2, sb2)
        if math.isinf(point.q) or point.status == "discontinuous":
            raise ValueError(
                f"`{where}(...)` needs a fixed point of the length map, and {activation.name} at weight_variance "
                f"{sw2:g}, bias_variance {sb2:g} has none that serves. {STATUS[point.status]} Or pass q=, the "
                "mean square of the pre-activations."
            )
        length = point.q
    slopes = depth if output == "activations" else depth - 1
    law = slope_law(activation, length) if slopes else slope_law(get("identity"), 1.0)
    with np.errstate(all="ignore"):
        highest = law.moments[-1] / law.moments[0] ** len(law.moments)
    if not math.isfinite(highest):
        raise ValueError(
            f"`{where}(...)` needs moments of {activation.name}'(z)^2 that float64 holds, and those under "
            f"N(0, {length:g}) are beyond its range. Pass a q= nearer to 1."
        )
    return Chain(activation, law, slopes, depth, math.log(sw2), ensemble == "gaussian", length)
