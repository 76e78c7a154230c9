"""Moments of phi(x), x ~ N(0, q), in float64 with error estimates, and Hermite coefficients."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from jaxinit._core import checks
from jaxinit.activations._activation import Activation
from jaxinit.activations._catalogue import resolve
from jaxinit.activations._host import evaluate
from jaxinit.activations._panels import jumps
from jaxinit.activations._quadrature import gaussian_rule, panel_edges

_FINE, _COARSE = 20, 14
_TINY = 1e-290  # below it float64 loses digits
_END = 9.5  # standard deviations; the rule reaches 10


class Moments(NamedTuple):
    """Moments of phi(x) for x ~ N(0, q). Each is a float; `error` bounds their errors relative to their
    sizes.

    Attributes:
        mean: E[phi].
        second: E[phi^2].
        slope_mean: E[phi'] (jumps of phi included).
        slope_second: E[phi'^2]; infinite where phi jumps.
        second_growth: d/dq E[phi^2].
        slope_second_growth: d/dq E[phi'^2].
        error: estimated largest relative error of these.
    """

    mean: float
    second: float
    slope_mean: float
    slope_second: float
    second_growth: float
    slope_second_growth: float
    error: float


def _integrals(activation: Activation, q: float, order: int) -> np.ndarray:
    """Sums of the integrands (row 0), of their magnitudes (1), and of those at the ends of the rule (2)."""
    scale = math.sqrt(q)
    z, w = gaussian_rule(panel_edges(activation, scale), scale, order)
    phi, slope = evaluate(activation, scale * z)
    with np.errstate(over="ignore", invalid="ignore"):
        terms = np.stack(
            [
                phi,
                phi * phi,
                slope,
                slope * slope,
                phi * slope * z / scale,
                slope * slope * (z * z - 1.0) / (2.0 * q),
            ]
        )
        sizes = np.abs(terms)
        return np.stack([terms @ w, sizes @ w, sizes @ np.where(np.abs(z) > _END, w, 0.0)])


@functools.lru_cache(maxsize=4096)
def _moments(activation: Activation, q: float) -> Moments:
    fine, size, end = _integrals(activation, q, _FINE)
    if np.isnan(fine[:2]).any():
        raise checks.bad(
            "moments", "activation", f"finite under N(0, {q:.4g})", activation,
            "It is nan or infinite at some real numbers; pre-activations take all of them.",
        )  # fmt: skip
    coarse = _integrals(activation, q, _COARSE)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = np.where(size > _TINY, size, 1.0)
        error, missed = np.abs(fine - coarse) / unit, end / unit
    error[np.isnan(error)] = math.inf
    # No moment where phi is singular, nor where what lies beyond the rule decides; a phi that is 0 up to there has one.
    seen = size > 1e-10 * np.asarray([math.sqrt(q), q, 1.0, 1.0, 1.0, 1.0 / q])
    fine[(error > 0.5) | ((missed > 0.01) & seen)] = math.inf
    if torn := jumps(activation):
        k, below, above = np.asarray(torn).T
        density = np.exp(-0.5 * k * k / q) / math.sqrt(2.0 * math.pi * q)
        fine[2] += ((above - below) * density).sum()
        fine[4] += ((above**2 - below**2) * k * density).sum() / (2.0 * q)
        fine[3], fine[5] = math.inf, math.nan
    # Where rounding rules (tanh_shrink near 0), both rules err by as much as they differ: hence the factor.
    return Moments._make([*fine.tolist(), 4.0 * float(np.nanmax(error)) + 1e-15])


def moments(activation: Any, q: float = 1.0) -> Moments:
    """Moments of phi and phi' under N(0, q), by quadrature split at the kinks of phi.

    The growth d/dq E[phi^2] is E[x phi phi'] / q, which holds for continuous phi with any kinks: it contains
    what d/dq = E[phi'^2 + phi phi''] needs delta functions for (hard_tanh, relu6).

    Args:
        activation: name, callable or Activation.
        q: the variance, positive.

    Returns:
        `Moments`: floats, accurate to about 1e-13 relative for catalogued activations, with an error
        estimate; inf where phi is singular, or grows so fast that values beyond 10 standard deviations rule the
        moment.

    Raises:
        ValueError: phi is nan or infinite at real numbers.

    Example:
        >>> from jaxinit.activations import moments
        >>> m = moments("relu", 2.0)
        >>> round(m.second, 12), round(m.slope_second, 12), round(m.second_growth, 12)
        (1.0, 0.5, 0.5)
    """
    q = checks.number("moments", "q", q, above=0.0)
    return _moments(resolve("moments", activation), float(q))


def hermite(activation: Any, q: float, degree: int) -> np.ndarray:
    """Coefficients of phi(sqrt(q) z) in normalized Hermite polynomials.

        a_k = E[phi(sqrt(q) z) He_k(z)] / sqrt(k!),    sum_k a_k^2 = E[phi(sqrt(q) z)^2]

    so that E[phi(u) phi(v)] = sum_k a_k(q_u) a_k(q_v) c^k for Gaussian u, v of correlation c (Mehler).

    Args:
        activation: name, callable or Activation.
        q: the variance, positive.
        degree: the largest k, at most 1000.

    Returns:
        Array of `degree + 1` coefficients, float64.

    Example:
        >>> from jaxinit.activations import hermite
        >>> [abs(round(float(a), 6)) for a in hermite("identity", 4.0, 3)]
        [0.0, 2.0, 0.0, 0.0]
    """
    activation = resolve("hermite", activation)
    q = float(checks.number("hermite", "q", q, above=0.0))
    degree = checks.integer("hermite", "degree", degree, at_least=0)
    if degree > 1000:
        raise checks.bad("hermite", "degree", "at most 1000", degree)
    scale = math.sqrt(q)
    z, w, polynomials = hermite_rule(panel_edges(activation, scale), scale, degree)
    phi, _ = evaluate(activation, scale * z)
    return np.asarray(polynomials @ (w * phi))


def hermite_rule(x_edges: np.ndarray, scale: float, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes, weights and normalized Hermite polynomials (degree + 1, nodes) that resolve each other.

    He_k / sqrt(k!) oscillates sqrt(k) times a unit length, so panels narrow with the degree; it is bounded by
    exp(z^2 / 4), so that nothing is left beyond 13 standard deviations.
    """
    reach = 13.0
    width = min(2.0, 14.0 / math.sqrt(degree + 1.0))
    z_edges = np.linspace(-reach, reach, 2 * math.ceil(reach / width) + 1)
    z, w = gaussian_rule(x_edges, scale, _FINE, z_edges)
    out = np.empty((degree + 1, len(z)))
    out[0] = 1.0
    if degree:
        out[1] = z
    for k in range(1, degree):
        out[k + 1] = (z * out[k] - math.sqrt(k) * out[k - 1]) / math.sqrt(k + 1.0)
    return z, w, out
