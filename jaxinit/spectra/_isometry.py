"""Dynamical isometry in a few numbers: do all singular values of the Jacobian stay near 1?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxinit._core.struct import record, static
from jaxinit.spectra._chain import chain
from jaxinit.spectra._density import _log_largest

#: What a status means.
STATUS: dict[str, str] = {
    "isometric": (
        "Squared singular values have mean 1 and a variance below 1: errors travel back with their shape."
    ),
    "balanced": (
        "Squared singular values have mean 1 but a variance of at least 1: gradients keep their size on average, "
        "few directions carry them. Orthogonal weights with a smaller q*, or less depth, bring the variance down."
    ),
    "vanishing": "The mean squared singular value is far below 1: gradients vanish. Raise weight_variance.",
    "exploding": "The mean squared singular value is far above 1: gradients explode. Lower weight_variance.",
}


@record
class Isometry:
    """How close the input-output Jacobian is to an isometry.

    Attributes:
        log_mean: log E[s^2] = L log chi_1; 0 on the edge of chaos.
        relative_variance: Var(s^2) / E[s^2]^2; 0 for an isometry (up to scale).
        log_largest: log of the largest singular value s; inf if phi' is unbounded.
        zero_share: share of singular values that are exactly 0.
        status: a key of `jaxinit.spectra.STATUS`.
    """

    log_mean: float
    relative_variance: float
    log_largest: float
    zero_share: float
    status: str = static()

    @property
    def mean(self) -> float:
        """E[s^2]."""
        return float(np.exp(np.float64(self.log_mean)))

    @property
    def largest(self) -> float:
        """The largest singular value."""
        return float(np.exp(np.float64(self.log_largest)))

    @property
    def message(self) -> str:
        """What the status means."""
        return STATUS[self.status]


def dynamical_isometry(
    activation: Any,
    depth: int,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    ensemble: str = "gaussian",
    output: str = "activations",
    q: float | None = None,
) -> Isometry:
    """Mean, spread and largest of the singular values of a deep network's Jacobian.

    On the edge of chaos the mean of s^2 is 1 at every depth; its variance grows like L for Gaussian weights
    and for ReLU whatever the weights. With orthogonal weights and tanh it is about 8 q*^2 L, so that a q* that
    falls like 1 / sqrt(L) keeps it at any value (Pennington, Schoenholz & Ganguli 2017). Arguments are
    those of `moments`.

    Returns:
        `Isometry`; its status is "vanishing" or "exploding" when E[s^2] is outside [1/10, 10], else
        "isometric" when Var(s^2) / E[s^2]^2 < 1, else "balanced".

    Example:
        >>> from jaxinit.spectra import dynamical_isometry
        >>> found = dynamical_isometry("identity", 20, 1.0, ensemble="orthogonal")
        >>> found.status, found.relative_variance, found.largest
        ('isometric', 0.0, 1.0)
        >>> dynamical_isometry("relu", 20, 2.0, ensemble="orthogonal").status
        'balanced'
    """
    where = "dynamical_isometry"
    c = chain(where, activation, depth, weight_variance, bias_variance, ensemble, output, q)
    atoms = c.atoms()
    bounded = c.law.bounded or not c.slopes
    largest = 0.5 * _log_largest(c, atoms) if bounded else math.inf
    zero = sum(mass for place, mass in atoms if place == -math.inf)
    if abs(c.log_mean) > math.log(10.0):
        status = "exploding" if c.log_mean > 0.0 else "vanishing"
    else:
        status = "isometric" if c.relative_variance < 1.0 else "balanced"
    spread = 0.0 if c.relative_variance < 1e-14 else c.relative_variance
    return Isometry(c.log_mean, spread, largest, zero, status)
