"""Orthonormal frames of a few long vectors, safe for equal, parallel and zero vectors."""

from __future__ import annotations

import functools
from functools import partial

import jax
import jax.numpy as jnp

from jaxinit._core.lapack import qr
from jaxinit._core.sums import FEW, one_loop, products, sums

#: What `orthonormalize` returns: orthonormal rows, and the coefficients of the vectors in them.
Frame = tuple[jax.Array, jax.Array]

#: Up to this many vectors Gram-Schmidt, applied twice, is unrolled.
UNROLLED = FEW
#: Up to this many it is a loop over vectors; above it LAPACK's Householder QR serves. On one thread LAPACK takes 1.6
#: times the loop's CPU time for 16 vectors of 8,192 entries, 0.8 for 64, 0.5 for 128 and 0.2 for 256; but its two
#: threads wait busily, and beside other programs take 8 to 32 times the loop's (`experiments/bench/frames.py`).
ROW_BY_ROW = 128

_dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)


def rank_bound(rows: int, n: int) -> int:
    """How many frame vectors `orthonormalize` returns for `rows` vectors of n entries."""
    return rows if rows <= UNROLLED else min(rows, n)


def orthonormalize(x: jax.Array) -> Frame:
    """x = R Q with orthonormal rows Q: `x` (rows, n) -> Q (rank, n), R (rows, rank).

    Vectors that are zero, or that depend on the earlier ones to the precision of the dtype, get a zero frame
    vector and a zero column in R: products that need "any orthonormal frame of the span" stay exact. The
    distance of nearly equal vectors survives: 1 - cosine down to 1e-13 in float32, where a Gram matrix keeps
    1e-7 (Giraud, Langou & Rozloznik 2005: Gram-Schmidt twice is orthogonal to machine precision).
    """
    if x.shape[0] <= UNROLLED:
        return _unrolled(x)
    return gram_schmidt(x) if x.shape[0] <= min(ROW_BY_ROW, x.shape[1]) else householder(x)


def _unrolled(x: jax.Array) -> Frame:
    # Long passes are few: the products of a round are taken at once, those with the first row before all others, and
    # the second round's length follows from that of the first, for what it takes away is of the order of rounding.
    rows, eps = x.shape[0], jnp.finfo(x.dtype).eps
    zero = jnp.zeros((), x.dtype)
    inner = products(x)
    frame: list[jax.Array] = []
    inverse: list[jax.Array] = []
    table: list[list[jax.Array]] = []
    for a in range(rows):
        v, square = x[a], inner[a, a]
        whole, line = jnp.sqrt(square), [zero] * rows
        for turn in range(2 if frame else 0):
            if turn:
                square, *along = sums(v * v, *(q * v for q in frame))
                square = square - sum(jnp.square(c) for c in along)
            else:
                along = [inner[0, a] * inverse[0], *sums(*(q * v for q in frame[1:]))]
            line[:a] = [total + c for total, c in zip(line, along, strict=False)]
            v = v - sum(c * q for c, q in zip(along, frame, strict=True))
        length = jnp.sqrt(jnp.maximum(square, 0))
        kept = length > eps * whole
        line[a] = jnp.where(kept, length, zero)
        once, line[a] = one_loop(jnp.where(kept, 1 / jnp.where(kept, length, 1), zero), line[a])
        inverse.append(once)
        frame.append(v * inverse[-1])
        table.append(line)
    return jnp.stack(frame), jnp.stack([jnp.stack(line) for line in table])


def gram_schmidt(x: jax.Array) -> Frame:
    """`orthonormalize`, row after row, each freed twice of what is in the rows before."""
    rows, eps = x.shape[0], jnp.finfo(x.dtype).eps

    def step(a: jax.Array, found: tuple[jax.Array, jax.Array]) -> Frame:
        frame, table = found
        v = jax.lax.dynamic_index_in_dim(x, a, keepdims=False)
        whole, line = jnp.sqrt(_dot(v, v)), jnp.zeros(rows, x.dtype)
        for _ in range(2):
            along = _dot(frame, v)
            line, v = line + along, v - _dot(along, frame)
        length = jnp.sqrt(_dot(v, v))
        kept = length > eps * whole
        line = jax.lax.dynamic_update_index_in_dim(line, jnp.where(kept, length, 0), a, 0)
        v = v * jnp.where(kept, 1 / jnp.where(kept, length, 1), 0)
        return tuple(jax.lax.dynamic_update_index_in_dim(t, r, a, 0) for t, r in ((frame, v), (table, line)))

    return jax.lax.fori_loop(0, rows, step, (jnp.zeros_like(x), jnp.zeros((rows, rows), x.dtype)))


def householder(x: jax.Array) -> Frame:
    """`orthonormalize` by LAPACK; dependent vectors get a direction of no meaning, orthogonal to the others."""
    # For a zero vector Householder's frame has a direction of no meaning, in which vectors after it have a share:
    # zeros go last.
    order = jnp.argsort(jnp.all(x == 0, axis=1), stable=True)
    q, r = qr(x[order].T)
    table = r.T[jnp.argsort(order)]
    return q.T * jnp.any(table != 0, axis=0)[:, None].astype(x.dtype), table


def combine(coefficients: jax.Array, frame: jax.Array) -> jax.Array:
    """coefficients @ frame, for (rows, rank) and (rank, n), in full precision."""
    if max(coefficients.shape) > UNROLLED:
        return jnp.matmul(coefficients, frame, precision=jax.lax.Precision.HIGHEST)
    columns = coefficients.T
    parts = [
        c[:, None] * frame[j][None] for j, c in enumerate(one_loop(*columns) if len(columns) > 1 else columns)
    ]
    return functools.reduce(jnp.add, parts)


def project_out(v: jax.Array, frame: jax.Array) -> jax.Array:
    """v (I - Q^T Q): the rows of `v` without their part in the span of the frame's rows."""
    return v - combine(gram(v, frame), frame)


def gram(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b^T: inner products of the rows of `a` with those of `b`, in full precision."""
    return products(a, b)
