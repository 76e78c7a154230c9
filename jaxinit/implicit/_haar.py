"""A Haar-distributed (semi-)orthogonal matrix that is never formed.

W = scale * the n_in x n_out corner of V, V uniform on the orthogonal matrices of size m = max(n_in, n_out):
for n_in <= n_out the rows of W, else its columns, are orthonormal up to scale. Applied as x @ W:

    forward    X = R Q padded to m entries;  U a uniform orthonormal frame;   X V = R U
    backward   D padded;  D V^T = (D U^T) Q + R_D F,  with D (I - U^T U) = R_D Q_D and F a uniform orthonormal
               frame of the complement of Q

since V maps the complement of Q onto that of U by a Haar matrix independent of everything seen. Norms come
out exactly, not on average (square W).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.normals import normals
from jaxinit.implicit import _frames

#: What the backward product needs of the forward one: (Q, U), both padded to m entries.
Residual = tuple[jax.Array, jax.Array]


def pad(x: jax.Array, m: int) -> jax.Array:
    """Rows filled up to m entries with zeros."""
    return x if x.shape[1] == m else jnp.pad(x, ((0, 0), (0, m - x.shape[1])))


def uniform_frame(key: jax.Array, rows: int, m: int, dtype: Any, avoid: jax.Array | None = None) -> jax.Array:
    """Orthonormal rows, uniform among those orthogonal to the rows of `avoid`."""
    x = normals(key, rows, m, dtype)
    if avoid is not None:
        x = _frames.project_out(_frames.project_out(x, avoid), avoid)
    frame, triangle = _frames.orthonormalize(x)
    # Householder's R may have negative diagonal entries: with a positive diagonal the frame is uniform.
    return frame * jnp.where(jnp.diagonal(triangle) < 0, -1, 1).astype(dtype)[:, None]


def forward(
    key: jax.Array, x: jax.Array, n_out: int, scale: Any, frame: _frames.Frame | None = None
) -> tuple[jax.Array, Residual]:
    """x @ W for a fresh W: `x` (rows, n_in) -> (rows, n_out), and the residual for `backward`.

    `frame`: `orthonormalize(x)`, where that has been done for another matrix.
    """
    m = max(x.shape[1], n_out)
    q, r = _frames.orthonormalize(x) if frame is None else frame
    u = uniform_frame(key, q.shape[0], m, x.dtype)
    return _frames.combine(r * scale, u)[:, :n_out], (pad(q, m), u)


def backward(key: jax.Array, residual: Residual, d: jax.Array, n_in: int, scale: Any) -> jax.Array:
    """d @ W.T for the W of `forward`, once: `d` (rows, n_out) -> (rows, n_in). `key` is another key."""
    q, u = residual
    d = pad(d, q.shape[1])
    # Frame vectors of Q that are zero (dependent inputs) tell nothing of V: U counts only where Q does.
    seen = u * jnp.any(q != 0, axis=1, keepdims=True).astype(u.dtype)
    along = _frames.gram(d, seen)
    rest = d - _frames.combine(along, seen)
    _, r_d = _frames.orthonormalize(rest)
    fresh = uniform_frame(key, r_d.shape[1], q.shape[1], d.dtype, avoid=q)
    return scale * (_frames.combine(along, q) + _frames.combine(r_d, fresh))[:, :n_in]


def squared_norm(n_in: int, n_out: int, scale: Any) -> Any:
    """||W||_F^2 = scale^2 min(n_in, n_out), exactly."""
    return scale * scale * min(n_in, n_out)
