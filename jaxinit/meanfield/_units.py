"""Shares of units that a Gaussian leaves silent: where phi' is 0 for both inputs, where phi is 0."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from jaxinit.activations import Activation
from jaxinit.activations._host import evaluate
from jaxinit.meanfield._pairs import host_rule

_INSIDE = np.asarray([0.11, 0.37, 0.62, 0.83])
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
    share = np.zeros(len(log_q))
    root = np.sqrt(2.0) * np.exp(0.5 * log_q)
    for low, high, _, zero in _silent(activation):
        if zero:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                ends = [
                    np.sign(v) * np.ones_like(root) if math.isinf(v) else _erf(v / root) for v in (low, high)
                ]
            share += 0.5 * (ends[1] - ends[0])
    return share


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
