"""Shares of units that a Gaussian leaves silent: where phi' is 0 for both inputs or small, where phi is 0."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from jaxinit.activations import Activation
from jaxinit.activations._host import evaluate
from jaxinit.meanfield._pairs import host_rule

_INSIDE = np.asarray([0.11, 0.37, 0.62, 0.83])
_EDGE = 64.0  # saturation is looked for within
_SATURATED = 1e-2
_BEYOND = np.asarray([0.1, 1.0, 3.0, 9.0])


@functools.lru_cache(maxsize=512)
def _silent(activation: Activation) -> tuple[tuple[float, float, bool, bool], ...]:
    """(from, to, phi' = 0, phi = 0) of each interval between kinks."""
    kinks = activation.kinks
    ends = [-math.inf, *kinks, math.inf]
    out = []
    for low, high in itertools.pairwise(ends):
        if math.isinf(low) and math.isinf(high):
            places = np.concatenate([-_BEYOND, _BEYOND])
        elif math.isinf(low):
            places = high - _BEYOND
        elif math.isinf(high):
            places = low + _BEYOND
        else:
            places = low + (high - low) * _INSIDE
        phi, slope = evaluate(activation, places)
        out.append((low, high, bool((slope == 0.0).all()), bool((phi == 0.0).all())))
    return tuple(out)


def zero_fraction(activation: Activation, log_q: np.ndarray) -> np.ndarray:
    """P(phi(z) = 0), z ~ N(0, q)."""
    return _share([(low, high) for low, high, _, zero in _silent(activation) if zero], log_q)


def saturated_fraction(activation: Activation, log_q: np.ndarray) -> np.ndarray:
    """P(|phi'(z)| < 1e-2 max |phi'|), z ~ N(0, q); nan where phi still oscillates at the lengths that count."""
    intervals, settled = _saturated(activation)
    share = _share(intervals, log_q)
    if settled:
        return share
    with np.errstate(over="ignore"):
        far = np.asarray([math.erfc(v) for v in (_EDGE * np.exp(-0.5 * log_q) / math.sqrt(2.0)).tolist()])
    return np.where(far > 1e-9, math.nan, share)


@functools.lru_cache(maxsize=256)
def _saturated(activation: Activation) -> tuple[list[tuple[float, float]], bool]:
    """Where |phi'| is below 1e-2 of its maximum, and whether nothing changes in the outer half of the search."""
    kinks = [k for k in activation.kinks if abs(k) < _EDGE]
    grid = np.sort(np.concatenate([np.linspace(-_EDGE, _EDGE, 40_001), *(_beside(k) for k in kinks)]))
    size = np.abs(evaluate(activation, grid)[1])
    least = _SATURATED * size[np.isfinite(size)].max()
    low = size < least
    turns = np.flatnonzero(low[1:] != low[:-1])
    a, b = grid[turns], grid[turns + 1]
    for _ in range(50):  # by bisection, all turns together
        middle = 0.5 * (a + b)
        same = (np.abs(evaluate(activation, middle)[1]) < least) == low[turns]
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    ends = [-math.inf, *(0.5 * (a + b)).tolist(), math.inf]
    states = [bool(low[0]), *low[turns + 1].tolist()]
    intervals = [pair for pair, is_low in zip(itertools.pairwise(ends), states, strict=True) if is_low]
    return intervals, not (np.abs(b) > 0.5 * _EDGE).any()


def _beside(kink: float) -> np.ndarray:
    return np.asarray([kink - 1e-9 * max(1.0, abs(kink)), kink + 1e-9 * max(1.0, abs(kink))])


def _share(intervals: list[tuple[float, float]], log_q: np.ndarray) -> np.ndarray:
    """P(z in any of the intervals), z ~ N(0, q)."""
    share = np.zeros(len(log_q))
    root = np.sqrt(2.0) * np.exp(0.5 * log_q)
    for low, high in intervals:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ends = [np.sign(v) * np.ones_like(root) if math.isinf(v) else _erf(v / root) for v in (low, high)]
        share += 0.5 * (ends[1] - ends[0])
    return np.where(np.isnan(log_q), math.nan, share)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray([math.erf(v) for v in x.tolist()])


def dead_fraction(activation: Activation, log_q: np.ndarray, epsilon: np.ndarray) -> np.ndarray | None:
    """P(phi'(u) = phi'(v) = 0) for u, v ~ N(0, q) of correlation 1 - epsilon.

    An orthant for the ReLU family; for other flat pieces by quadrature, up to 64 layers, beyond which None.
    """
    flat = [(low, high) for low, high, dead, _ in _silent(activation) if dead]
    if not flat:
        return np.where(np.isnan(log_q), math.nan, 0.0)
    if flat in ([(-math.inf, 0.0)], [(0.0, math.inf)]):
        angle = 2.0 * np.arcsin(np.sqrt(0.5 * np.clip(epsilon, 0.0, 2.0)))
        return np.asarray((math.pi - angle) / (2.0 * math.pi))
    if len(log_q) > 64:
        return None
    with np.errstate(over="ignore"):
        lengths = np.exp(log_q)
    return np.asarray([_both(activation, flat, q, e) for q, e in zip(lengths, epsilon, strict=True)])


def _both(activation: Activation, flat: list[tuple[float, float]], q: float, epsilon: float) -> float:
    if not (0.0 < q < math.inf and math.isfinite(epsilon)):
        return math.nan
    u, v, w = host_rule(activation, float(q), float(q), float(min(max(epsilon, 0.0), 2.0)))
    dead_u, dead_v = (sum(((low < x) & (x < high)) for low, high in flat) for x in (u, v))
    return float(np.sum(w * dead_u * dead_v))
