"""Integrals that elementwise functions do not have: the largest of n Gaussians, and softmax of n Gaussians."""

from __future__ import annotations

import functools
import math

import numpy as np

__all__ = ["largest", "softmax_square"]

_Z = np.linspace(-9.0, 9.0, 601)
_W = np.exp(-0.5 * _Z * _Z) / math.sqrt(2.0 * math.pi) * (_Z[1] - _Z[0])
_LOG_CDF = np.log(np.array([max(0.5 * math.erfc(-z / math.sqrt(2.0)), 1e-300) for z in _Z]))


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


@functools.lru_cache(maxsize=4096)
def softmax_square(n: int, variance: float) -> float:
    """E[a_i^2] of a = softmax of n independent N(0, variance).

        E[e^(2u) / S^2] = int_0^inf t E[e^(2u) exp(-t e^u)] E[exp(-t e^u)]^(n - 1) dt

    from 1/S^2 = int t e^(-tS) dt; E[a_i] = 1/n, and E[a_i a_j] follows from sum a = 1.

    Example:
        >>> from jaxinit.adapt._analytic_order import softmax_square
        >>> round(softmax_square(8, 0.0), 6), round(softmax_square(8, 1e4), 2)
        (0.015625, 0.12)
    """
    if n == 1 or variance <= 1e-12:
        return 1.0 / (n * n)
    s = math.sqrt(variance)
    u = s * _Z
    # log t from where all n terms are small to where the largest alone is.
    low, high = -9.0 * s - math.log(n) - 12.0, 9.0 * s + 6.0
    step = max(0.05, 0.02 * s)
    log_t = np.arange(low, high, step)
    total = 0.0
    for chunk in np.array_split(log_t, max(1, len(log_t) // 256)):
        weight = np.exp(-np.exp(np.minimum(chunk[:, None] + u[None, :], 700.0)))
        one = np.clip(weight @ _W, 1e-300, 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            shape = np.exp(2.0 * (chunk[:, None] + u[None, :])) * weight
        two = np.where(np.isfinite(shape), shape, 0.0) @ _W
        total += float(np.sum(two * np.exp((n - 1) * np.log(one)))) * step
    return min(1.0 / n, max(1.0 / (n * n), total))
