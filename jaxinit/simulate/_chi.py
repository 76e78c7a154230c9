"""Chi-square and binomial variables as functions of a normal one: their quantile functions, as short polynomials.

A normal z of float32 becomes the variable x with P(X <= x) = P(Z <= z), to the resolution of float32: no rejection, no
table, the same few operations for every entry.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: Of n from here on, Binomial(n, 1/2) is a polynomial of a normal to 4e-8 standard deviations, and no normal of float32
#: (at most 6.8) leads to fewer than LEAST + 1 of either side.
MANY = 100
#: The size of the largest normal of float32, rounded up.
FAR = 7.0
#: Chi-squares of fewer degrees of freedom are of as many more, times powers of uniform variables.
LEAST = 16

#: sqrt(x / nu) = sum_jk c_kj y^j e^k of a chi-square x of nu >= LEAST degrees of freedom, e = 2 / nu, y = z sqrt(e).
#: The terms 1, y/2, y^2/24, -e/6 are those of Cornish & Fisher (1938), exactly; the others are fitted to SciPy's
#: inverse of the incomplete gamma function, weighted by the normal density (tests/simulate/fit_chi.py). x is right to
#: 6e-8 for |z| < 2.5, 3e-7 for |z| < 4.7, 1e-5 up to 6.8, relative.
ROOT = (
    (1.0, 0.5, 1 / 24, -0.00694412996, 0.000750351028, 2.66700285e-05, -3.86371869e-05, 1.33599596e-05,
     -2.17995797e-06, -4.98267245e-07, 1.63549378e-07),
    (-1 / 6, -0.0138923948, 0.00958290417, -0.00204695167, 8.36062712e-05, 0.000118422325, -6.50703285e-05,
     3.28755647e-06, 3.99987365e-06),
    (-0.00402780859, -0.00585312194, 0.00218051618, -0.000420196449, -0.000205069262, 0.000143210361),
    (0.00315011546, -0.00152638288, 0.000380062893, 0.00102821628),
)  # fmt: skip


def chi_square(z: jax.Array, freedom: jax.Array) -> jax.Array:
    """Chi-square of `freedom` >= LEAST degrees of freedom, from normals z of the same shape."""
    e = 2 / freedom
    y = z * jnp.sqrt(e)
    root = _polynomial(e, [_polynomial(y, row) for row in ROOT])
    return freedom * root * root


def lifted_chi_square(z: jax.Array, logs: jax.Array, freedom: jax.Array) -> jax.Array:
    """Chi-square of any number of degrees of freedom, 0 included; 0 where they are 0.

    A gamma variable of shape a is one of shape a + 1 times U^(1/a): LEAST / 2 of these steps.

    `logs`: of uniform variables in (0, 1], of shape (LEAST / 2, *z.shape).
    """
    shape = jnp.where(freedom > 0, freedom, 1) / 2
    total = jnp.zeros_like(z)
    for step in range(LEAST // 2):
        total = total + logs[step] / (shape + step)
    return jnp.where(freedom > 0, chi_square(z, freedom + LEAST) * jnp.exp(total), 0)


def coins(z: jax.Array, n: int) -> jax.Array:
    """Binomial(n, 1/2) of normals z: how many of its steps, as quantiles of the normal, lie below z."""
    if n < MANY:
        steps = _steps(n)
        total = jnp.full_like(z, (steps < -FAR).sum())
        for step in steps[np.abs(steps) <= FAR]:  # written out: one loop over z, in vectors
            total = total + (z > np.float32(step)).astype(z.dtype)
        return total
    # The steps z_k of P(X <= k) are interpolated by an odd polynomial, k + 1 = (n + 1) / 2 + T(z_k).
    odd = z * _polynomial(z * z, _interpolation(n))
    return n // 2 + jnp.floor(odd + (1.0 if n % 2 else 0.5))


def _polynomial(x: jax.Array, coefficients: Any) -> jax.Array:
    *rest, total = coefficients
    for c in reversed(rest):
        total = total * x + c
    return total


def _steps(n: int) -> np.ndarray:
    """z_k with P(Z <= z_k) = P(X <= k) for k = 0 .. n - 1, as far as float32 normals go."""
    k = np.arange(n // 2, dtype=np.float64)
    log = np.cumsum(np.concatenate([[-n * math.log(2.0)], np.log((n - k) / (k + 1))]))
    lower = np.cumsum(np.exp(log))[: n // 2]
    below = [NormalDist().inv_cdf(p) if p > 0 else -np.inf for p in lower]
    return np.array([*below, *([0.0] if n % 2 else []), *(-z for z in reversed(below))])


@functools.cache
def _interpolation(n: int) -> tuple[float, ...]:
    """Coefficients of z, z^3, .., z^9 in T."""
    k = np.arange(n // 2)
    z = _steps(n)[: n // 2]
    k, z = k[z > -FAR], z[z > -FAR]
    table = np.stack([z ** (2 * j + 1) for j in range(5)], axis=1)
    weight = np.exp(-np.maximum(np.abs(z) - 4.7, 0))[:, None]
    size = np.abs(table * weight).max(axis=0)
    target = (k + 1 - (n + 1) / 2) * weight[:, 0]
    found, *_ = np.linalg.lstsq(table * weight / size, target, rcond=None)
    return tuple((found / size).tolist())
