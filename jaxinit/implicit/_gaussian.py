"""A matrix of iid normal entries that is never formed.

W (n_in, n_out), applied as x @ W, W_ij iid N(0, stddev^2). A network at initialization asks W for a few
products only, and conditioning a Gaussian matrix on linear products leaves a Gaussian matrix, so the products
can be drawn exactly:

    forward    X = R Q (orthonormal rows Q);  G iid N(0, 1);   X W = stddev R G
    backward   cotangents D = R_D Q_D, chosen by anything that saw W only through X W;  Gamma iid N(0, 1):
               D W^T = stddev [ (D G^T) Q + R_D Gamma (I - Q^T Q) ]

because W = stddev (Q^T G + (I - Q^T Q) G') with G' independent of everything seen. Exact in law, jointly with
the forward pass, at any width; nothing is inverted, so equal or zero inputs are harmless.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.normals import normals
from jaxinit.implicit import _frames

#: What the backward product needs of the forward one: (Q, G), arrays or tuples of their rows.
Residual = tuple[Any, Any]


def forward(
    key: jax.Array, x: jax.Array, n_out: int, stddev: Any, frame: _frames.Frame | None = None
) -> tuple[jax.Array, Residual]:
    """x @ W for a fresh W: `x` (rows, n_in) -> (rows, n_out), and the residual for `backward`.

    `frame`: `orthonormalize(x)`, where that has been done for another matrix.
    """
    q, r = _frames.orthonormalize(x) if frame is None else frame
    g = draw(key, q, n_out)
    return _frames.combine(r * stddev, g), (q, g)


def draw(key: jax.Array, q: Any, n_out: int) -> jax.Array:
    """G of `forward`, given its key and Q: for who would rather draw it twice than keep it."""
    return normals(key, len(q), n_out, q[0].dtype)


def backward(key: jax.Array, residual: Residual, d: jax.Array, stddev: Any) -> jax.Array:
    """d @ W.T for the W of `forward`, once: `d` (rows, n_out) -> (rows, n_in). `key` is another key."""
    return backward_and_seen(key, residual, d, stddev)[0]


def backward_and_seen(
    key: jax.Array, residual: Residual, d: jax.Array, stddev: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """`backward`, and of the independent normals that W is made of, how many both products drew, and the sum of their
    squares: those of G, and of Gamma (I - Q^T Q)."""
    q, g = residual
    q_d, r_d = _frames.orthonormalize(d)
    normal = normals(key, len(q_d), q[0].shape[0], d.dtype)
    along = _frames.gram(normal, q)
    known = _frames.gram(d, g) - _frames.combine(r_d, along)
    product = stddev * (_frames.combine(known, q) + _frames.combine(r_d, normal))
    q, g = (jnp.stack(v) if isinstance(v, tuple) else v for v in (q, g))
    used, used_d = (jnp.any(frame != 0, axis=1).astype(d.dtype) for frame in (q, q_d))
    here, there = jnp.sum(used), jnp.sum(used_d)
    squares = jnp.sum(jnp.square(g), axis=1) @ used
    beside = jnp.sum(jnp.square(normal), axis=1) - jnp.sum(jnp.square(along), axis=1)
    count = here * g.shape[1] + there * (q.shape[1] - here)
    return product, (count, squares + jnp.maximum(beside, 0) @ used_d)


def squared_norm(key: jax.Array, seen: tuple[jax.Array, jax.Array], size: int, stddev: Any) -> jax.Array:
    """||W||_F^2 for W of `size` entries given all that products have `seen` of it: a chi-square for the rest.

    With W = stddev (Q^T G + P (Q_D^T Gamma)^T + P G'' P_D), P = I - Q^T Q, P_D = I - Q_D^T Q_D, the three parts are
    orthogonal, and G'' is independent of everything seen.
    """
    count, squares = seen
    freedom = size - count
    rest = 2 * jax.random.gamma(key, jnp.maximum(freedom, 1) / 2, dtype=squares.dtype)
    return jnp.square(stddev) * (squares + jnp.where(freedom > 0, rest, 0))
