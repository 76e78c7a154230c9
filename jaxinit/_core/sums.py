"""Several sums over the entries of long rows in one loop: what they are made of is computed there, and not kept.

XLA's CPU compiler makes a loop of every sum, and before it one for every array that is summed; a reduction of several
operands is one loop for all. It adds `_LANES` entries at a time, in vectors along the rest of the row: with
more of them the loop within the loop is not unrolled any more, and then there are no vectors.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp

__all__ = ["FEW", "exponents", "one_loop", "products", "products_and", "sums"]

#: Up to this many rows each is written out by itself.
FEW = 4
#: Entries added in each step of the loop: so many that they are unrolled.
_LANES = 4


def one_loop(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, two or more of one shape, computed together, once, and before what they are used for.

    XLA would compute anew what a loop is made of for each array that it fills, and for every entry what is the same
    for a row; a reduction of several operands is one loop, and not merged with what follows.
    """
    whole = [jnp.stack([v, jnp.zeros_like(v)]) for v in arrays]
    zeros = [jnp.zeros((), v.dtype) for v in arrays]
    return tuple(jax.lax.reduce(whole, zeros, lambda p, q: [a + b for a, b in zip(p, q, strict=True)], (0,)))


def sums(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The sums of each array (..., n) over its last axis; the arrays may have different leading axes, of few rows."""
    if not arrays:
        return ()
    shapes = [v.shape[:-1] for v in arrays]
    n = arrays[0].shape[-1]
    if n % _LANES or any(math.prod(shape) > FEW for shape in shapes):
        return tuple(jnp.sum(v, axis=-1) for v in arrays)
    rows = [row for v in arrays for row in v.reshape((-1, _LANES, n // _LANES))]
    zeros = [jnp.zeros((), v.dtype) for v in rows]
    parts = jax.lax.reduce(rows, zeros, lambda p, q: [a + b for a, b in zip(p, q, strict=True)], (0,))
    found = jnp.sum(jnp.stack(parts), axis=-1)
    ends = list(itertools.accumulate(map(math.prod, shapes), initial=0))
    return tuple(found[a:b].reshape(s) for a, b, s in zip(ends, ends[1:], shapes, strict=False))


def exponents(x: jax.Array) -> jax.Array:
    """Of each row (..., n) the exponent bits of its largest magnitude, int32; those of infinity if it is not finite.

    Of floating point numbers without their sign the order is that of their bits, nan above all.
    """
    info, n = jnp.finfo(x.dtype), x.shape[-1]
    bits = jax.lax.bitcast_convert_type(x, f"int{info.bits}") >> info.nmant
    top = bits & (2 * info.maxexp - 1)
    if n % (2 * _LANES) == 0:  # of two operands, as a reduction of one would be split up
        halves = top.reshape((*x.shape[:-1], 2, _LANES, n // (2 * _LANES)))
        pair, zero = [halves[..., i, :, :] for i in (0, 1)], jnp.zeros((), top.dtype)
        pair = jax.lax.reduce(pair, [zero] * 2, lambda p, q: list(map(jnp.maximum, p, q)), (x.ndim - 1,))
        top = jnp.maximum(*pair)
    return jnp.max(top.astype(x.dtype), axis=-1).astype(jnp.int32)


def products(x: jax.Array, y: jax.Array | None = None) -> jax.Array:
    """x y^T: inner products of the rows of `x` with those of `y`, or with one another; in full precision."""
    return products_and(x, y)[0]


def products_and(x: jax.Array, y: jax.Array | None = None, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The same, and `sums` of more arrays in the loop of a few rows."""
    other = x if y is None else y
    a, b = len(x), len(other)
    if max(a, b) > FEW:
        return _table(x, other), *sums(*arrays)
    wanted = [(i, j) for i in range(a) for j in range(b) if y is not None or i <= j]
    found = sums(*(x[i] * other[j] for i, j in wanted), *arrays)
    entry = dict(zip(wanted, found, strict=False))
    table = [[entry[i, j] if (i, j) in entry else entry[j, i] for j in range(b)] for i in range(a)]
    return jnp.stack([jnp.stack(line) for line in table]), *found[len(wanted) :]


def _table(x: jax.Array, y: jax.Array) -> jax.Array:
    """x y^T. A CPU multiplies many rows with one in a tenth of the time that it takes with a matrix of one row."""
    if len(x) == 1:
        return jnp.matmul(y, x[0], precision=jax.lax.Precision.HIGHEST)[None]
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
