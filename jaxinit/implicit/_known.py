"""What has been seen of a random matrix, and the exact law of the next product with it.

A matrix that is used again (a recurrent network, shared layers, an encoder and decoder of tied weights) must be
conditioned on every product seen of it, on both sides. Rows are vectors; W is (n_in, n_out).

Gaussian, W_ij iid N(0, s^2). Seen so far: P W = Y and Q W^T = Z, for orthonormal rows P (k, n_in) and Q (l, n_out).
Given them

    W = P^T Y + (I - P^T P) Z^T Q + (I - P^T P) W' (I - Q^T Q),

with W' a fresh copy of W: the two projected-out sides of a Gaussian matrix are independent of the rest of it
(Bolthausen 2014, "An iterative construction of solutions of the TAP equations", is this for one vector
at a time; Bayati & Montanari 2011 use it for iterations of any length). So for a new x = a P + b p, where p are
orthonormal rows orthogonal to those of P,

    x W = a Y + b y,     y = (p Z^T) Q + s Gamma (I - Q^T Q),     Gamma iid N(0, 1),

and p, y join P, Y. It does not matter how x was chosen, as long as it was from what had been seen. The other side is
the same for W^T.

Haar, W = s times a corner of a uniform orthogonal V. V is known on one subspace: T V = S, with orthonormal rows T
and S, whichever side was asked. A new x = a T + b t maps to s (a S + b u), with u a uniform orthonormal frame of
the complement of S; t, u join T, S.

Buffers have a fixed capacity, so that they pass through `scan`; rows not used yet, and rows of inputs that were known
already to the precision of the dtype, are zero.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.normals import normals
from jaxinit._core.struct import leaf, record, static
from jaxinit.implicit import _frames
from jaxinit.implicit._haar import pad, uniform_frame


def resolve(x: jax.Array, frame: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x = a frame + b new: `x` (rows, n) -> a, b and orthonormal (or zero) rows `new`, orthogonal to `frame`.

    Gram-Schmidt twice, of rows and of blocks. A row of which the second pass takes more than half away was
    rounding noise after the first: it was known already. There are as many rows `new` as `orthonormalize` makes.
    """
    a, v = _split(x, frame)
    length = jnp.sqrt(jnp.sum(jnp.square(v), axis=1, keepdims=True))
    more, v = _split(v / jnp.where(length > 0, length, 1), frame)
    known = jnp.sum(jnp.square(v), axis=1, keepdims=True) < 0.25
    a, v = a + length * more, jnp.where(known, 0, length * v)
    first, b = _frames.orthonormalize(v)
    if len(x) == 1:
        return a, b, first
    # Directions in which rows nearly agree were amplified with what was left of the frame in them.
    c, first = _split(first, frame)
    more, first = _split(first, frame)
    some = jnp.sum(jnp.square(first), axis=1, keepdims=True) > 1e-6
    new, triangle = _frames.orthonormalize(jnp.where(some, first, 0))
    return a + _frames.combine(b, c + more), _frames.combine(b, triangle), new


def _split(x: jax.Array, frame: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x = a frame + rest: a and rest."""
    a = _frames.gram(x, frame)
    return a, x - _frames.combine(a, frame)


def _put(buffer: jax.Array, rows: jax.Array, used: jax.Array) -> jax.Array:
    start = jnp.asarray(used, jnp.int32)
    return jax.lax.dynamic_update_slice(buffer, rows, (start, jnp.zeros_like(start)))


def _nan_if(full: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.where(full, jnp.nan, x)


@record
class GaussianKnown:
    """P W = Y and Q W^T = Z of a Gaussian matrix; `counts`: rows used of each pair of buffers, and products drawn.

    The counts are floating point numbers: what is not can not travel with the gradients.
    """

    p: Any = leaf()
    y: Any = leaf()
    q: Any = leaf()
    z: Any = leaf()
    counts: Any = leaf()

    @staticmethod
    def empty(shape: tuple[int, int], capacity: int, dtype: Any) -> GaussianKnown:
        """Nothing seen yet."""
        n_in, n_out = shape
        right, left = jnp.zeros((capacity, n_in), dtype), jnp.zeros((capacity, n_out), dtype)
        return GaussianKnown(right, left, left, right, jnp.zeros(3, jnp.float32))

    @property
    def transposed(self) -> GaussianKnown:
        """The same of W^T."""
        return GaussianKnown(self.q, self.z, self.p, self.y, self.counts[jnp.asarray([1, 0, 2])])

    def product(self, key: Any, x: jax.Array, scale: Any) -> tuple[jax.Array, GaussianKnown]:
        """x @ W, and all that is known then."""
        y, new, value = self.draw(key, x, scale)
        used = self.counts[0]
        full = used + new.shape[0] > self.p.shape[0]
        known = GaussianKnown(
            _put(self.p, new, used), _put(self.y, value, used), self.q, self.z,
            self.counts + jnp.asarray([new.shape[0], 0, 1], jnp.float32),
        )  # fmt: skip
        return _nan_if(full, y), known

    def draw(self, key: Any, x: jax.Array, scale: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x @ W, the new rows of P and those of Y, for who keeps buffers of his own."""
        a, b, new = resolve(x, self.p)
        fresh = normals(key, new.shape[0], self.q.shape[1], x.dtype) * scale
        value = _frames.combine(_frames.gram(new, self.z), self.q) + _frames.project_out(fresh, self.q)
        value = value * jnp.any(new != 0, axis=1, keepdims=True).astype(x.dtype)
        return _frames.combine(a, self.y) + _frames.combine(b, value), new, value

    def coordinates(self, x: jax.Array) -> jax.Array:
        """Of vectors that W has been multiplied with, x @ W: x = coordinates @ P."""
        return _frames.gram(x, self.p)

    def squares(self, scale: Any) -> tuple[jax.Array, jax.Array]:
        """How many of the independent normals that W is made of are known, and the sum of their squares.

        ||W||^2 = ||Y||^2 + ||Z (I - P^T P)||^2 + ||(I - P^T P) W' (I - Q^T Q)||^2.
        """
        (n_in, n_out), dtype = (self.p.shape[1], self.q.shape[1]), self.p.dtype
        here, there = (jnp.sum(jnp.any(f != 0, axis=1), dtype=dtype) for f in (self.p, self.q))
        rest = _frames.project_out(self.z, self.p)
        total = jnp.sum(jnp.square(self.y / scale)) + jnp.sum(jnp.square(rest / scale))
        return here * n_out + there * (n_in - here), total

    def matrix(self, key: Any, scale: Any) -> jax.Array:
        """A whole W that agrees with everything seen, drawn from its law given that."""
        fresh = normals(key, self.p.shape[1], self.q.shape[1], self.p.dtype) * scale
        rest = _frames.combine(self.z.T, self.q) + _frames.project_out(fresh, self.q)
        known = _frames.combine(self.p.T, self.y)
        return known + _frames.project_out(rest.T, self.p).T


@record
class HaarKnown:
    """T V = S of a Haar matrix V of size m; `counts`: rows used (twice: one count for both sides), products drawn."""

    t: Any = leaf()
    s: Any = leaf()
    counts: Any = leaf()
    shape: tuple[int, int] = static()

    @staticmethod
    def empty(shape: tuple[int, int], capacity: int, dtype: Any) -> HaarKnown:
        """Nothing seen yet; the two sides share buffers of twice the capacity."""
        rows = jnp.zeros((2 * capacity, max(shape)), dtype)
        return HaarKnown(rows, rows, jnp.zeros(3, jnp.float32), shape)

    @property
    def transposed(self) -> HaarKnown:
        """The same of W^T."""
        return HaarKnown(self.s, self.t, self.counts, self.shape[::-1])

    def product(self, key: Any, x: jax.Array, scale: Any) -> tuple[jax.Array, HaarKnown]:
        """x @ W, and all that is known then."""
        y, new, value = self.draw(key, x, scale)
        used, rows = self.counts[0], new.shape[0]
        full = used + rows > self.t.shape[0]
        counts = self.counts + jnp.asarray([rows, rows, 1], jnp.float32)
        known = HaarKnown(_put(self.t, new, used), _put(self.s, value, used), counts, self.shape)
        return _nan_if(full, y), known

    def draw(self, key: Any, x: jax.Array, scale: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x @ W, the new rows of T and those of S, for who keeps buffers of his own."""
        m = self.t.shape[1]
        a, b, new = resolve(pad(x, m), self.t)
        frame = uniform_frame(key, new.shape[0], m, x.dtype, avoid=self.s)
        # The i-th direction that is new takes the i-th row: there may be fewer rows to have than rows asked for.
        true = jnp.any(new != 0, axis=1)
        value = frame[jnp.maximum(jnp.cumsum(true) - 1, 0)] * true[:, None].astype(x.dtype)
        y = scale * (_frames.combine(a, self.s) + _frames.combine(b, value))
        return y[:, : self.shape[1]], new, value

    def coordinates(self, x: jax.Array) -> jax.Array:
        """Of vectors that W has been multiplied with, x @ W: x = coordinates @ T."""
        return _frames.gram(pad(x, self.t.shape[1]), self.t)

    def squares(self, scale: Any) -> tuple[jax.Array, jax.Array]:
        """Nothing of ||W||^2 is random."""
        zero = jnp.zeros((), self.t.dtype)
        return zero, zero

    def matrix(self, key: Any, scale: Any) -> jax.Array:
        """A whole W that agrees with everything seen, drawn from its law given that."""
        return self.draw(key, jnp.eye(self.shape[0], dtype=self.t.dtype), scale)[0]
