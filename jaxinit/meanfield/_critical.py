"""The edge of chaos: weight and bias variances at which gradients neither grow nor die."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import record, static
from jaxinit.activations import Activation, moments
from jaxinit.activations._catalogue import resolve
from jaxinit.activations._panels import jumps
from jaxinit.meanfield._fixed_point import _bracketed, _homogeneity, depth_scale, scan
from jaxinit.meanfield._maps import slope_second_moment, variances


@record
class CriticalPoint:
    """A point with chi_1 = 1.

    Attributes:
        weight_variance, bias_variance: sigma_w^2 and sigma_b^2.
        q: the fixed point q* of the length map there; 0 or, for a homogeneous activation, whatever it was.
        chi_1: 1.
        chi_q: slope of the length map; the fixed point holds only if |chi_q| < 1.
        xi_q: depth scale of lengths, layers.
        status: "stable"; "unstable": a real network leaves this q*, the point is of no use to one;
        "marginal":
            every q is fixed (ReLU at 2); "zero": q* = 0, approached algebraically (tanh at 1).
    """

    weight_variance: float
    bias_variance: float
    q: float
    chi_1: float
    chi_q: float
    xi_q: float
    status: str = static()

    @property
    def stable(self) -> bool:
        """Whether a network near q* stays near it: true for "stable", "marginal" and "zero"."""
        return self.status != "unstable"


def critical(
    activation: Any, bias_variance: float | None = None, *, q: float | None = None
) -> tuple[CriticalPoint, ...]:
    """Every point of the edge of chaos with a given bias variance, or with a given q*.

        sigma_w^2 = 1 / E[phi'(sqrt(q) z)^2],    sigma_b^2 = q - sigma_w^2 E[phi(sqrt(q) z)^2]

    so that chi_1 = 1 and q is a fixed point (Poole et al. 2016; Schoenholz et al. 2017; Hayou et al. 2019).

    Args:
        activation: name, callable or Activation.
        bias_variance: sigma_b^2, at least 0.
        q: instead, the fixed point itself, positive.

    Returns:
        `CriticalPoint`s: those a network can stay at first, then ascending in q. Gelu and silu have unstable
        ones, said so in `status`. Empty if there is none (sigmoid, softplus at small bias; ReLU with a bias).

    Raises:
        ValueError: unless exactly one of bias_variance and q is given; if phi jumps; or if at this q the bias
            variance would have to be negative.

    Example:
        >>> from jaxinit.meanfield import critical
        >>> point = critical("tanh", 0.05)[0]
        >>> round(point.weight_variance, 5), round(point.q, 5), point.status
        (1.76095, 0.57005, 'stable')
        >>> critical("relu", 0.0)[0].weight_variance
        2.0
        >>> [p.status for p in critical("gelu", 0.05)]
        ['unstable']
    """
    where = "critical"
    activation = resolve(where, activation)
    if (bias_variance is None) == (q is None):
        raise ValueError(
            f"`critical(...)` takes exactly one of bias_variance= and q=, got bias_variance={bias_variance!r} and "
            f"q={q!r}."
        )
    _no_jumps(where, activation)
    if q is not None:
        return (_at(activation, float(checks.number(where, "q", q, above=0.0))),)
    sb2 = float(checks.number(where, "bias_variance", bias_variance, at_least=0.0))
    if _homogeneity(activation) is not None:
        point = _at(activation, 1.0)
        if point.bias_variance == sb2 == 0.0:
            return (point,)
        if point.bias_variance <= 0.0 or sb2 == 0.0:
            return ()
        return (_at(activation, sb2 / point.bias_variance),)

    table = scan(activation)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = table.q - table.second / table.slope - sb2
    points = []
    if sb2 == 0.0 and moments(activation, float(table.q[0])).second < 1e-6 * math.sqrt(table.q[0]):
        slope = slope_second_moment(activation, 0.0)
        if slope > 0.0:
            points.append(CriticalPoint(1.0 / slope, 0.0, 0.0, 1.0, 1.0, math.inf, "zero"))
    for i in range(len(needed) - 1):
        lo, hi = float(table.q[i]), float(table.q[i + 1])
        noise = 1e-12 * hi
        if not np.isfinite(needed[i : i + 2]).all() or (
            abs(needed[i]) < noise and abs(needed[i + 1]) < noise
        ):
            continue
        if np.sign(needed[i]) * np.sign(needed[i + 1]) <= 0.0:
            points.append(
                _at(activation, _bracketed(lambda v: (_needed(activation, v) - sb2, math.nan), lo, hi), sb2)
            )
    return tuple(sorted(points, key=lambda p: (not p.stable, p.q)))


def critical_line(activation: Any, bias_variances: Any) -> np.ndarray:
    """The weight variances of the edge of chaos over bias variances, for plots: stable points only.

    Args:
        activation: name, callable or Activation.
        bias_variances: 1-D.

    Returns:
        float64 array of their length; nan where no stable critical point exists.

    Example:
        >>> from jaxinit.meanfield import critical_line
        >>> critical_line("tanh", [0.0, 0.0025, 0.05]).round(5).tolist()
        [1.0, 1.26009, 1.76095]
    """
    where = "critical_line"
    activation = resolve(where, activation)
    values = variances(where, "bias_variances", bias_variances)
    out = np.full(values.shape, np.nan)
    for i, value in enumerate(values.tolist()):
        stable = [p for p in critical(activation, value) if p.stable]
        if stable:
            out[i] = stable[0].weight_variance
    return out


def _no_jumps(where: str, activation: Activation) -> None:
    if jumps(activation):
        raise checks.bad(
            where,
            "activation",
            "continuous",
            activation,
            "Where phi jumps, chi_1 is infinite: every net is chaotic.",
        )


def _needed(activation: Activation, q: float) -> float:
    """The bias variance that puts a critical point at q."""
    m = moments(activation, q)
    return q - m.second / m.slope_second


def _at(activation: Activation, q: float, sb2: float | None = None) -> CriticalPoint:
    m = moments(activation, q)
    if not m.slope_second > 0.0:
        raise checks.bad("critical", "q", "where phi' is not 0 almost surely", q)
    sw2 = 1.0 / m.slope_second
    bias = q - sw2 * m.second if sb2 is None else sb2
    if abs(bias) < 1e-14 * q:
        bias = 0.0
    if bias < 0.0:
        raise checks.bad(
            "critical", "q", "the fixed point of a critical network", q,
            f"It would need a bias variance of {bias:.4g}; try another q, or bias_variance=.",
        )  # fmt: skip
    chi_q = sw2 * m.second_growth
    if _homogeneity(activation) is not None and bias == 0.0:
        return CriticalPoint(_rounded(sw2), 0.0, q, 1.0, 1.0, math.inf, "marginal")
    status = "stable" if abs(chi_q) < 1.0 else "unstable"
    return CriticalPoint(sw2, bias, q, 1.0, chi_q, depth_scale(chi_q), status)


def _rounded(value: float) -> float:
    """`value`, or the integer it is within its rounding errors."""
    return float(round(value)) if abs(value - round(value)) < 1e-14 * abs(value) else value
