"""The random kernels: draw in the working precision, scale, round once; compiled per shape, not per scale.

float32 (and float64, and complex normal and uniform) draws follow `jax.random` and the arithmetic of
`jax.nn.initializers` step by step, so both libraries give the same bits for the same key.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.threefry import fused
from jaxinit.initializers._base import times, working_dtype

__all__ = [
    "COMPLEX_TRUNCATED_STDDEV",
    "TRUNCATED_STDDEV",
    "as_scalar",
    "draw",
    "product",
    "truncated_moments",
]


def truncated_moments(lower: float, upper: float) -> tuple[float, float]:
    """Mean and standard deviation of a standard normal conditioned to lie in (lower, upper).

    With `Z = Phi(b) - Phi(a)`: mean `(phi(a) - phi(b)) / Z`, variance
    `1 + (a phi(a) - b phi(b)) / Z - mean^2` (Johnson, Kotz & Balakrishnan 1994).
    Far in a tail the formula cancels; there the integrals are taken by Gauss-Legendre quadrature.
    """
    a, b = float(lower), float(upper)
    if a > 0 or b < 0 or b - a < 0.5:
        nodes, weights = np.polynomial.legendre.leggauss(200)
        near = min(abs(a), abs(b))
        lo, hi = (max(a, b - 40.0), b) if b <= 0 else (a, min(b, a + 40.0)) if a >= 0 else (a, b)
        x = 0.5 * (hi - lo) * nodes + 0.5 * (hi + lo)
        base = near if a > 0 or b < 0 else 0.0
        mass = weights * np.exp(-0.5 * (x * x - base * base))
        mean = float(np.sum(mass * x) / np.sum(mass))
        return mean, math.sqrt(float(np.sum(mass * (x - mean) ** 2) / np.sum(mass)))

    def density(x: float) -> float:
        return math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)

    def edge(x: float) -> float:
        return x * density(x) if math.isfinite(x) else 0.0

    z = 0.5 * (math.erf(b / math.sqrt(2)) - math.erf(a / math.sqrt(2)))
    mean = (density(a) - density(b)) / z
    return mean, math.sqrt(1 + (edge(a) - edge(b)) / z - mean * mean)


def complex_truncated_stddev(radius: float) -> float:
    """Standard deviation of a complex standard normal conditioned on `|z| < radius`.

    `|z|^2` is a unit exponential, so `E[|z|^2 | |z| < t] = 1 - t^2 exp(-t^2) / (1 - exp(-t^2))`.
    """
    t2 = radius * radius
    return math.sqrt(1 - t2 * math.exp(-t2) / -math.expm1(-t2))


TRUNCATED_STDDEV = 0.87962566103423978  # truncated_moments(-2, 2)[1], to the last bit that jax types in
COMPLEX_TRUNCATED_STDDEV = complex_truncated_stddev(2.0)  # 0.96196...


def as_scalar(x: Any, work: np.dtype) -> Any:
    """A real scalar in the working precision: NumPy's where it is known, so eager and jit round alike."""
    real = np.dtype(work.type(0).real.dtype)
    if isinstance(x, jax.core.Tracer):
        return jnp.asarray(x, real)
    with np.errstate(over="ignore"):
        found = real.type(np.asarray(x))
    if np.isinf(found) and np.isfinite(x):
        raise ValueError(
            f"an initializer's numbers must be within the range of {real} (at most {np.finfo(real).max:.3g}), got "
            f"{x!r}. Take a smaller one, or a wider dtype."
        )
    return found


def product(a: Any, b: Any) -> Any:
    """`a * b` of scalars that are already in the working precision; 1.0 is no factor."""
    if isinstance(b, float) and b == 1.0:
        return a
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return a * jnp.asarray(b, a.dtype)
    return a * a.dtype.type(np.asarray(b))


@functools.partial(jax.jit, static_argnames=("distribution", "shape", "dtype", "shifted"))
def draw(
    key: Any, scale: Any, mean: Any, lower: Any, upper: Any, *, distribution: str, shape: tuple[int, ...],
    dtype: np.dtype, shifted: bool = False,
) -> jax.Array:  # fmt: skip
    """`mean + scale * x` with x of the standard law `distribution`, rounded once to `dtype`.

    Standard laws: "normal"; "truncated_normal" on (lower, upper), complex: `|z| < upper`; "uniform" on
    [lower, upper), complex: the disc of radius sqrt(2).
    """
    work = working_dtype(dtype)
    if jnp.issubdtype(work, jnp.complexfloating):
        x = _complex(key, upper, distribution, shape, work)
    else:
        x = _real(fused(key, shape), lower, upper, distribution, shape, work)
    x = times(x, scale)
    if shifted:
        big = np.finfo(work).max
        x = (jnp.clip(x, -big, big) if not jnp.iscomplexobj(x) else x) + jnp.asarray(mean, x.dtype)
    return x.astype(dtype)


def _real(
    key: Any, lower: Any, upper: Any, distribution: str, shape: tuple[int, ...], work: np.dtype
) -> jax.Array:
    if distribution == "normal":
        return jax.random.normal(key, shape, work)
    if distribution == "truncated_normal":
        return jax.random.truncated_normal(key, lower, upper, shape, work)
    return jax.random.uniform(key, shape, work, lower, upper)


def _complex(key: Any, radius: Any, distribution: str, shape: tuple[int, ...], work: np.dtype) -> jax.Array:
    """A complex draw with E[|z|^2] = 1 before truncation."""
    if distribution == "normal":
        return jax.random.normal(key, shape, work)
    real = np.dtype(work.type(0).real.dtype)
    key_r, key_theta = jax.random.split(key)
    u = jax.random.uniform(key_r, shape, real)
    if distribution == "uniform":
        r = jnp.sqrt(2 * u)
    else:
        r = jnp.sqrt(-jnp.log1p(jnp.expm1(-jnp.square(jnp.asarray(radius, real))) * u))
    theta = 2 * np.pi * jax.random.uniform(key_theta, shape, real)
    return r.astype(work) * jnp.exp(1j * theta.astype(work))
