"""Integrals that elementwise functions do not have: the largest, softmax and log-sum-exp of n Gaussians."""

from __future__ import annotations

import functools
import math

import numpy as np

__all__ = ["largest", "log_sum_exp", "normal_cdf", "softmax_pair", "softmax_square", "softmax_squares"]

# Sums over equal steps: of functions that are analytic in a strip about the real axis their error falls exponentially.
_Z = np.linspace(-9.0, 9.0, 121)
_W = np.exp(-0.5 * _Z * _Z) / math.sqrt(2.0 * math.pi) * (_Z[1] - _Z[0])
#: Where e^(k v - e^v) is not 0 to the digits of float64, and that density times the step, k = 1 and 2.
_V = np.arange(-38.0, 5.0, 0.2)
_ONE, _TWO = (np.exp(k * _V - np.exp(_V)) * (_V[1] - _V[0]) for k in (1, 2))
#: The normal distribution function, to be interpolated: to 1e-7.
_FINE = np.linspace(-9.0, 9.0, 18_001)
_CDF = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in _FINE])
_LOG_CDF = np.log(np.array([max(0.5 * math.erfc(-z / math.sqrt(2.0)), 1e-300) for z in _Z]))


def normal_cdf(z: np.ndarray) -> np.ndarray:
    """The normal distribution function."""
    return np.interp(z, _FINE, _CDF)


@functools.lru_cache(maxsize=1024)
def largest(n: int) -> tuple[float, float]:
    """Mean and variance of the largest of n independent standard normal numbers.

    Example:
        >>> from jaxinit.adapt._analytic_order import largest
        >>> [round(v, 4) for v in largest(2)]  # 1/sqrt(pi), 1 - 1/pi
        [0.5642, 0.6817]
    """
    density = n * _W * np.exp((n - 1) * _LOG_CDF)
    density = density / density.sum()
    mean = float(density @ _Z)
    return mean, float(density @ (_Z - mean) ** 2)


def softmax_square(n: int, variance: float) -> float:
    """E[a_i^2] of a = softmax of n independent N(0, variance).

        E[e^(2u) / S^2] = int_0^inf t E[e^(2u) exp(-t e^u)] E[exp(-t e^u)]^(n - 1) dt

    from 1/S^2 = int t e^(-tS) dt; E[a_i] = 1/n, and E[a_i a_j] follows from sum a = 1.

    Example:
        >>> from jaxinit.adapt._analytic_order import softmax_square
        >>> round(softmax_square(8, 0.0), 6), round(softmax_square(8, 1e4), 2)
        (0.015625, 0.12)
    """
    return float(softmax_squares((n,), variance)[0])


@functools.lru_cache(maxsize=1024)
def softmax_squares(counts: tuple[int, ...], variance: float) -> np.ndarray:
    """`softmax_square` for several n: the expectations are the same for all."""
    n = np.array(counts, np.float64)
    if variance <= 1e-12:
        return 1.0 / (n * n)
    none, _, two, step = _transforms(n.max(), variance)
    logs = np.log(np.clip(none, 1e-300, 1.0))
    parts = np.array_split(n, max(1, len(n) // 256))
    total = np.concatenate([np.exp(np.multiply.outer(part - 1.0, logs)) @ two for part in parts]) * step
    return np.clip(total, 1.0 / (n * n), 1.0 / n)


@functools.lru_cache(maxsize=1024)
def softmax_pair(n: int, variance: float) -> float:
    """How E[a_i a_j] of `softmax_square` grows with the covariance of u_i and u_j, of n >= 2 entries.

        E[d^2 (a_i a_j) / du_i du_j] = E[a_i a_j (1 - 2 a_i) (1 - 2 a_j) + 2 a_i^2 a_j^2]    (Price 1958)
                                     = int_0^inf (m_1 - m_2)^2 E[exp(-t e^u)]^(n - 2) dt / t

    with m_k = t^k E[e^(k u) exp(-t e^u)].

    Example:
        >>> from jaxinit.adapt._analytic_order import softmax_pair
        >>> round(softmax_pair(8, 0.0) * 64, 4)  # 1 - 4 / n + 6 / n^2
        0.5938
    """
    if variance <= 1e-12:
        return (1.0 - 4.0 / n + 6.0 / n**2) / n**2
    none, one, two, step = _transforms(n, variance)
    return float(np.exp((n - 2.0) * np.log(np.clip(none, 1e-300, 1.0))) @ np.square(one - two) * step)


def _transforms(n: float, variance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """t^k E[e^(k u) exp(-t e^u)] for k = 0, 1, 2 over log t, from where all n terms are small to where the largest
    alone is; and the step of log t."""
    s = math.sqrt(variance)
    step = max(0.1, 0.02 * s)
    log_t = np.arange(-9.0 * s - math.log(n) - 12.0, 9.0 * s + 6.0, step)
    return *(_wide if s > 1 else _narrow)(log_t, s), step


@functools.lru_cache(maxsize=4096)
def log_sum_exp(n: int, variance: float) -> tuple[float, float]:
    """Mean and variance of log sum_i exp(u_i), the u_i independent N(0, variance).

    With g = -log E, E standard exponential, P(log S + g < y) = E[exp(-e^(-y) S)] = E[exp(-e^(-y) e^u)]^n, and g has
    mean 0.5772 and variance pi^2 / 6.

    Example:
        >>> from jaxinit.adapt._analytic_order import log_sum_exp
        >>> round(log_sum_exp(1, 4.0)[1], 2), round(log_sum_exp(8, 0.0)[0], 4)  # the one; log 8
        (4.0, 2.0794)
    """
    if variance <= 1e-12:
        return math.log(n), 0.0
    s = math.sqrt(variance)
    y = np.arange(-9.0 * s - 8.0, 9.0 * s + math.log(n) + 40.0, max(0.05, 0.02 * s))
    below = np.exp(n * np.log(np.clip((_wide if s > 1 else _narrow)(-y, s)[0], 1e-300, 1.0)))
    mass, at = np.diff(below), (y[1:] + y[:-1]) / 2
    mean = float(mass @ at / mass.sum())
    spread = float(mass @ (at - mean) ** 2 / mass.sum())
    return mean - float(np.euler_gamma), max(0.0, spread - math.pi**2 / 6)


def _narrow(log_t: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E[exp(-t e^u)], t E[e^u exp(-t e^u)] and t^2 E[e^(2u) exp(-t e^u)], over u."""
    v = log_t[:, None] + s * _Z
    weight = np.exp(-np.exp(v))
    return weight @ _W, (np.exp(v) * weight) @ _W, (np.exp(2.0 * v) * weight) @ _W


def _wide(log_t: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same over v = u + log t, P the distribution of u and p its density: sharp in v alone, however wide u is.

    E[exp(-t e^u)] = int e^(v - e^v) P(v - log t) dv  (by parts),   the others = int e^(kv - e^v) p(v - log t) dv
    """
    z = (_V - log_t[:, None]) / s
    density = np.exp(-0.5 * z * z) / (math.sqrt(2.0 * math.pi) * s)
    return normal_cdf(z) @ _ONE, density @ _ONE, density @ _TWO
