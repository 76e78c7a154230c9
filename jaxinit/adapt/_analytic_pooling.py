"""The largest entry of a window of equally correlated Gaussians of unequal strengths, and functions of it.

With z_i = a_i (u + v_i), u ~ N(0, b) common to the window and v_i ~ N(0, o) independent, given u the distribution of
the largest is a product,

    P(max z_i < t | u) = prod_i Phi((t / a_i - u) / sqrt(o))

so that its moments are integrals over t and u. Two windows that share a part of variance c of u have the covariance of
E[f(max) | that part].
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from jaxinit.activations import get
from jaxinit.activations._host import evaluate
from jaxinit.adapt._analytic_order import normal_cdf
from jaxinit.adapt._analytic_pointwise import Expression

__all__ = ["Pooled"]

_REACH = 6.0
_U = np.linspace(-_REACH, _REACH, 49)
_CELLS = 240
_NODES, _WEIGHTS = (np.asarray(v) for v in np.polynomial.hermite_e.hermegauss(24))
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


class Pooled:
    """f(mean + sign max_i z_i) over windows.

    Attributes:
        mean, second: moments of it.
        slope: E[f'^2] there.

    Args:
        fn, mean, sign: of it.
        common, own: b and o.
        windows: strengths of the entries of the windows that differ, and the shares of such windows.
    """

    def __init__(
        self, fn: Expression, mean: float, sign: float, common: float, own: float, windows: Any
    ) -> None:
        self._common = max(common, 0.0)
        total = self._common + max(own, 0.0)
        size = math.sqrt(total)
        if size == 0.0:
            value, slope = (float(v[0]) for v in evaluate(get(fn), np.array([mean])))
            self._given_u, self.mean, self.second, self.slope = (
                np.full(len(_U), value),
                value,
                value**2,
                slope**2,
            )
        else:
            self._given_u, self.mean, self.second, self.slope = _integrals(
                fn, mean, sign, size, self._common / total, windows
            )
        self._own = max(own, 0.0)

    def covariances(self, shared: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """Of two windows that share a part of u of these variances, and whose v_i have these covariances: to first
        order in them, exact where they are 0 and where they are o."""
        out = self._of_u(shared)
        if own is None or self._own == 0.0:
            return out
        rest = self.second - self.mean**2 - float(self._of_u(np.array(self._common)))
        return out + rest * np.clip(own / self._own, 0.0, 1.0)

    def _of_u(self, shared: np.ndarray) -> np.ndarray:
        if self._common == 0.0:
            return np.zeros_like(shared)
        out = []
        for c in np.clip(np.ravel(shared) / self._common, 0.0, 1.0):
            u = math.sqrt(c) * _NODES[:, None] + math.sqrt(1.0 - c) * _NODES[None, :]
            given = np.interp(u, _U, self._given_u) @ _WEIGHTS
            centre = float(given @ _WEIGHTS)
            out.append(float(np.square(given - centre) @ _WEIGHTS))
        return np.reshape(out, np.shape(shared))


@functools.lru_cache(maxsize=1024)
def _integrals(
    fn: Expression, mean: float, sign: float, size: float, share: float, windows: Any
) -> tuple[np.ndarray, float, float, float]:
    """E[f | u] on the grid, E[f], E[f^2] and E[f'^2]."""
    kinds, shares = windows
    most = max((max(kind, default=0.0) for kind in kinds), default=0.0)
    edges = np.linspace(-_REACH * most, _REACH * most, _CELLS + 1)
    at = (edges[1:] + edges[:-1]) / 2
    phi, slope = evaluate(get(fn), mean + sign * size * at)
    given = np.zeros((len(_U), _CELLS))
    common, own = math.sqrt(share), max(math.sqrt(1.0 - share), 1e-6)
    for kind, part in zip(kinds, shares, strict=True):
        below = np.ones((len(_U), _CELLS + 1))
        for a in kind:
            below *= normal_cdf((edges / a - common * _U[:, None]) / own)
        below[:, 0], below[:, -1] = 0.0, 1.0
        given += part * np.diff(below, axis=1)
    density = np.exp(-0.5 * _U**2)
    density /= density.sum()
    likely = density @ given
    return given @ phi, float(likely @ phi), float(likely @ phi**2), float(likely @ slope**2)
