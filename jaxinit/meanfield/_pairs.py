"""Expectations over two correlated Gaussians, exact for kinks anywhere and for correlations as near 1 as you
like.

With u = sqrt(q_a) (alpha s + beta d), v = sqrt(q_b) (alpha s - beta d), s and d independent N(0, 1), and
alpha^2 = (1 + c) / 2, beta^2 = (1 - c) / 2, the correlation of u and v is c, and a kink k of phi lies on the
lines s = (k / sqrt(q_a) - beta d) / alpha and s = (k / sqrt(q_b) + beta d) / alpha. The inner rule, in s, is
split on these lines, the outer one, in d, where they cross. What shrinks as c -> 1 is the panel between the
lines, never the accuracy. Only 1 - c enters, not c.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxinit.activations import Activation, hermite, moments
from jaxinit.activations._host import evaluate
from jaxinit.activations._panels import jumps
from jaxinit.activations._quadrature import REACH, legendre, panel_edges

_LOG_2PI = math.log(2.0 * math.pi)
_INNER = np.linspace(-REACH, REACH, 9)
_OUTER = np.linspace(0.0, REACH, 5)
_ORDER = 16


class Pair(NamedTuple):
    """Expectations over a pair (u, v) of Gaussians.

    Attributes:
        product: E[phi(u) phi(v)].
        difference: E[(phi(u) / r_a - phi(v) / r_b)^2] / 2, with r^2 = E[phi^2] of each: 1 - the cosine of the
            activations, without cancellation.
        slope_product: E[phi'(u) phi'(v)].
    """

    product: float
    difference: float
    slope_product: float


def pair_rule(
    edges: Any,
    kinks: Any,
    rungs: Any,
    scales: tuple[Any, Any],
    epsilon: Any,
    sign: Any = 1.0,
    xp: Any = np,
    fixed: Callable[[Any], Any] = lambda x: x,
) -> tuple[Any, Any, Any]:
    """Nodes u, v and weights, each of shape (outer, inner), for correlation sign * (1 - epsilon), 0 <=
    epsilon <= 1.

    `fixed`, when given, is applied to what the panels depend on: with `jax.lax.stop_gradient` the nodes (s, d) stay
    where they are under differentiation, which is exact for a phi without kinks, and compiles in half the time.

    Args:
        edges: panels of phi, in the units of u and v.
        kinks: the kinks among them.
        rungs: lengths on which phi varies, in the same units.
        scales: standard deviations of u and v.
        epsilon: 1 - |correlation|, in [0, 1].
        sign: of the correlation, 1 or -1.
        xp: numpy, or jax.numpy to trace.
        fixed: see above.
    """
    a, b = scales
    dtype = xp.result_type(a)
    edges, kinks, rungs = (xp.asarray(v, dtype=dtype) for v in (edges, kinks, rungs))
    alpha = xp.sqrt(1.0 - 0.5 * epsilon)
    beta = xp.maximum(xp.sqrt(0.5 * epsilon), float(np.finfo(dtype).tiny) ** 0.5)

    d, wd, s, ws = fixed(_nodes(edges, kinks, rungs, scales, alpha, beta, sign, xp))
    shift = beta * d[:, None]
    return a * (alpha * s + shift), sign * b * (alpha * s - shift), wd[:, None] * ws


def _nodes(
    edges: Any, kinks: Any, rungs: Any, scales: tuple[Any, Any], alpha: Any, beta: Any, sign: Any, xp: Any
) -> tuple[Any, Any, Any, Any]:
    """Nodes and weights in d, shape (outer,), and in s, shape (outer, inner)."""
    a, b = scales
    outer, inner, t, weight = (xp.asarray(v, dtype=edges.dtype) for v in (_OUTER, _INNER, *legendre(_ORDER)))
    crossings = xp.abs(kinks[:, None] / a - sign * kinks[None, :] / b).reshape(-1) / (2.0 * beta)
    steps = xp.concatenate([rungs / (beta * a), rungs / (beta * b)])
    ends = xp.sort(xp.clip(xp.concatenate([outer, crossings, steps]), 0.0, REACH))
    d, wd = _on_panels(ends, t, weight, xp)
    d, wd = xp.concatenate([-d[::-1], d]), xp.concatenate([wd[::-1], wd])
    on_a = (edges[None, :] / a - beta * d[:, None]) / alpha
    on_b = (sign * edges[None, :] / b + beta * d[:, None]) / alpha
    everywhere = xp.broadcast_to(inner[None, :], (d.shape[0], inner.shape[0]))
    lines = xp.clip(xp.concatenate([on_a, on_b], axis=1), -REACH, REACH)
    s, ws = _on_panels(xp.sort(xp.concatenate([lines, everywhere], axis=1), axis=1), t, weight, xp)
    return d, wd, s, ws


def _on_panels(ends: Any, t: Any, weight: Any, xp: Any) -> tuple[Any, Any]:
    """Gauss-Legendre nodes on panels (last axis), with the Gaussian density in their weights."""
    half = 0.5 * (ends[..., 1:] - ends[..., :-1])
    mid = 0.5 * (ends[..., 1:] + ends[..., :-1])
    t, weight = (v.reshape((1,) * half.ndim + v.shape) for v in (t, weight))
    z = mid[..., None] + half[..., None] * t
    w = half[..., None] * weight * xp.exp(-0.5 * z * z - 0.5 * _LOG_2PI)
    shape = (*ends.shape[:-1], -1)
    return z.reshape(shape), w.reshape(shape)


def ladder(activation: Activation, reach: float) -> np.ndarray:
    """Lengths on which phi varies within +-reach, doubling from its narrowest panel; none if phi is made of lines."""
    edges = panel_edges(activation, reach / REACH)
    if len(edges) <= len(activation.kinks):
        return np.zeros(0)
    smooth = np.diff(edges)
    first = float(smooth[smooth > 1e-6].min()) if (smooth > 1e-6).any() else reach
    count = max(1, math.ceil(math.log2(max(reach / first, 2.0))))
    return first * 2.0 ** np.arange(min(count, 24))


def host_rule(
    activation: Activation, qa: float, qb: float, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes u, v and weights for variances qa, qb and correlation 1 - epsilon in [-1, 1]."""
    sign, near = (1.0, epsilon) if epsilon <= 1.0 else (-1.0, 2.0 - epsilon)
    a, b = math.sqrt(qa), math.sqrt(qb)
    top = max(a, b)
    edges = panel_edges(activation, top)
    kinks = np.asarray([k for k in activation.kinks if abs(k) < REACH * top])
    scales = np.float64(a), np.float64(b)
    u, v, w = pair_rule(edges, kinks, ladder(activation, REACH * top), scales, near, sign)
    if qa == qb and sign > 0.0:  # u and v change places with the sign of d
        half = len(u) // 2
        return u[half:], v[half:], 2.0 * w[half:]
    return u, v, w


def pair(activation: Activation, qa: float, qb: float, epsilon: float) -> Pair:
    """Expectations for variances qa, qb and correlation 1 - epsilon in [-1, 1], in float64 on the host."""
    u, v, w = host_rule(activation, qa, qb, epsilon)
    phi_u, slope_u = evaluate(activation, u)
    phi_v, slope_v = evaluate(activation, v)
    ra, rb = (math.sqrt(moments(activation, q).second) for q in (qa, qb))
    with np.errstate(over="ignore", invalid="ignore"):
        product = float(np.sum(w * phi_u * phi_v))
        slope_product = float(np.sum(w * slope_u * slope_v))
        if jumps(activation):
            slope_product = math.nan
        if ra == 0.0 or rb == 0.0:
            return Pair(product, math.nan, slope_product)
        difference = 0.5 * float(np.sum(w * np.square(phi_u / ra - phi_v / rb)))
    if qa == qb and _is_near(activation, qa, epsilon):
        difference = _near(activation, qa, epsilon) / ra**2
    return Pair(product, difference, slope_product)


def _is_near(activation: Activation, q: float, epsilon: float) -> bool:
    """Whether u and v are near each other, on the scale on which phi varies: at a kink, on that of u itself."""
    if jumps(activation) or epsilon * q >= 1e-5 * _finest(activation, q) ** 2:
        return False
    return epsilon < 0.01 or all(abs(k) >= REACH * math.sqrt(q) for k in activation.kinks)


def _finest(activation: Activation, q: float) -> float:
    steps = np.diff(panel_edges(activation, math.sqrt(q)))
    return float(min(1.0, steps.min())) if len(steps) else 1.0


def _near(activation: Activation, q: float, epsilon: float) -> float:
    """E[(phi(u) - phi(v))^2] / 2 where u - v is too small for differences: q times the integral of E[phi'
    phi'].

    E[phi'(u) phi'(v)] is analytic in the square root of 1 - c, at a kink up to that of 2, so six nodes near 0 are
    plenty.
    """
    t, weight = (0.5 * (legendre(6)[0] + 1.0), 0.5 * legendre(6)[1])
    total = 0.0
    for node, wt in zip(t, weight, strict=True):
        u, v, w = host_rule(activation, q, q, epsilon * node * node)
        slope_u, slope_v = evaluate(activation, u)[1], evaluate(activation, v)[1]
        total += wt * 2.0 * node * float(np.sum(w * slope_u * slope_v))
    return q * epsilon * total


def mehler_difference(
    activation: Activation, q: float, epsilons: np.ndarray, degree: int
) -> tuple[np.ndarray, float]:
    """E[(phi(u) - phi(v))^2] / 2 at many correlations by Mehler's series, and the share m of E[phi^2] it misses.

    The error is at most m |c|^degree E[phi^2].
    """
    a = hermite(activation, q, degree)
    k = np.arange(degree + 1)
    eps = np.minimum(np.asarray(epsilons, dtype=np.float64), 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.where(eps <= 1.0, np.log1p(-np.minimum(eps, 1.0)), np.log(np.maximum(eps - 1.0, 0.0)))
        powers = k[None, :] * magnitude[:, None]
    powers[:, 0] = 0.0
    odd = (k % 2 == 1)[None, :] & (eps > 1.0)[:, None]
    lost = np.where(odd, 1.0 + np.exp(powers), -np.expm1(powers))
    second = moments(activation, q).second
    missed = second - float(np.sum(a * a))
    found = lost @ (a * a)
    if abs(missed) > 1e-14 * second:  # terms beyond the degree, whose c^k is left out
        found += np.where(eps > 0.0, missed, 0.0)
    return found, abs(missed) / second
