"""Standard normals for simulation: two from each run of the cipher, in one fused loop of short polynomials.

`jax.random.normal` spends one run of the threefry cipher on a number and throws half of its 64 bits away; then it
inverts the error function. Here the two words x, y of a run make two normals, as radius and angle (Box & Muller 1958):

    r = sqrt(-2 log((x + 1/2) / 2^32)),    (r cos t, r sin t),  t uniform on the circle by y,

t as one of four quarter turns (two bits of y) and an angle in [-pi/4, pi/4), where sine and cosine are short
polynomials. On a CPU a normal takes a fourth of the time of `jax.random.normal`. The numbers are other ones for the
same key: where a network drawn by jax must be met bit for bit, `jaxinit.initializers` draws.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.sums import FEW, one_loop
from jaxinit._core.threefry import fused, words

__all__ = ["normals", "polar", "vector"]


def normals(key: Any, rows: int, n: int, dtype: Any = jnp.float32) -> jax.Array:
    """iid N(0, 1) of shape (rows, n), from a typed threefry key.

    The first rows of a draw are the same whatever `rows` is: an input sees the same network however many others
    are sent through it. float32 normals are at most 6.8 in size (the largest of 10^11 would be 6.8) and right to
    about 1e-6 relative, except that radii below 3e-4 (one pair in 10^7) are rounded to multiples of it; narrower
    types are rounded from float32. float64 normals are the same ones with more digits, of radii in steps of 2^-32 of
    their distribution function.

    Example:
        >>> import jax
        >>> from jaxinit._core.normals import normals
        >>> x = normals(jax.random.key(0), 2, 1000)
        >>> x.shape, bool(abs(x.mean()) < 0.1), bool(abs((x**2).mean() - 1) < 0.2)
        ((2, 1000), True, True)
    """
    pairs = -(-rows // 2)
    if pairs * n >= 2**32:  # more numbers than a run gives
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(rows, dtype=jnp.uint32))
        return jax.vmap(lambda k: jax.random.normal(fused(k, (n,)), (n,), dtype))(keys)
    pair = _pairs(key, pairs, n, dtype)
    if rows > FEW:
        return jnp.stack(pair, axis=1).reshape((2 * pairs, n))[:rows]
    return jnp.stack([v[i] for i in range(pairs) for v in pair][:rows])


def _pairs(key: Any, rows: int, n: int, dtype: Any) -> tuple[jax.Array, ...]:
    """Two arrays (rows, n), whose entries are the two normals of each run of the cipher."""
    data = jax.random.key_data(key)
    data = jnp.concatenate(one_loop(data[:1], data[1:]))
    by = polar if jnp.dtype(dtype).itemsize <= 4 else _wide_polar
    return tuple(v.astype(dtype) for v in one_loop(*by(*words(data, (rows, n)))))


def vector(key: Any, n: int, dtype: Any = jnp.float32) -> jax.Array:
    """n of them, from half as many runs of the cipher as `normals(key, 1, n)`."""
    half = -(-n // 2)
    if half >= 2**32:
        return normals(key, 2, half, dtype).ravel()[:n]
    return jnp.concatenate(_pairs(key, 1, half, dtype), axis=1)[0, :n]


def polar(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The pair of normals of two uint32 words."""
    uniform = x.astype(jnp.float32) * jnp.float32(2.0**-32) + jnp.float32(2.0**-33)
    radius = jnp.sqrt(-2 * jnp.log(uniform))
    t = y.astype(jnp.int32).astype(jnp.float32) * jnp.float32(math.pi / 4 * 2.0**-31)
    square = t * t
    sine = t * _taylor(square, (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
    cosine = _taylor(square, (1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320))
    # The two lowest bits of y turn by quarters; they move t itself by less than 1e-9.
    radius = jnp.where((y & jnp.uint32(1)) == 1, -radius, radius)
    quarter = (y & jnp.uint32(2)) == 2
    return radius * jnp.where(quarter, -sine, cosine), radius * jnp.where(quarter, cosine, sine)


def _wide_polar(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same in float64."""
    radius = jnp.sqrt(-2 * jnp.log(x.astype(jnp.float64) * 2.0**-32 + 2.0**-33))
    t = y.astype(jnp.int32).astype(jnp.float64) * (math.pi / 4 * 2.0**-31)
    radius = jnp.where((y & jnp.uint32(1)) == 1, -radius, radius)
    quarter = (y & jnp.uint32(2)) == 2
    sine, cosine = jnp.sin(t), jnp.cos(t)
    return radius * jnp.where(quarter, -sine, cosine), radius * jnp.where(quarter, cosine, sine)


def _taylor(x: jax.Array, coefficients: tuple[float, ...]) -> jax.Array:
    total = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = total * x + jnp.float32(c)
    return total
