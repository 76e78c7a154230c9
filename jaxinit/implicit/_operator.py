"""Implicit matrices as differentiable functions: `(key, x) -> x @ W` with an exact reverse rule."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, record, static
from jaxinit.implicit import _gaussian, _haar


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _product(key: Any, x: jax.Array, scale: jax.Array, n_out: int, law: str) -> jax.Array:
    return _product_forward(key, x, scale, n_out, law)[0]


def _product_forward(key: Any, x: jax.Array, scale: jax.Array, n_out: int, law: str) -> tuple[jax.Array, Any]:
    there, back = jax.random.split(key)
    module = _gaussian if law == "gaussian" else _haar
    y, residual = module.forward(there, x, n_out, scale)
    return y, (back, residual, scale, x.shape[1], y)


def _product_backward(n_out: int, law: str, saved: Any, d: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    back, residual, scale, n_in, y = saved
    if law == "gaussian":
        dx = _gaussian.backward(back, residual, d, scale)
    else:
        dx = _haar.backward(back, residual, d, n_in, scale)
    return None, dx, jnp.sum(d * y) / scale


_product.defvjp(_product_forward, _product_backward)


@record
class ImplicitMatrix:
    """A random matrix W of `shape` (n_in, n_out) that is never formed; `W(x)` is x @ W.

    One call draws the product, and its derivative draws the product with W^T, exactly in law and jointly.
    The matrix is fresh at every call: calls with the same key and different inputs are not calls of the
    same matrix (`tied` is for that). Composes under jit, grad, vmap and scan.

    Products are drawn in float32, or float64 for `x` of float64, and have the dtype of `x`: bfloat16 and float16 rows
    get the products of a matrix of more digits, rounded once.
    """

    key: Any = leaf()
    scale: Any = leaf()
    shape: tuple[int, int] = static()
    law: str = static()

    def __call__(self, x: jax.Array) -> jax.Array:
        """x @ W for `x` of shape (..., n_in)."""
        x = rows_of("ImplicitMatrix", "x", x, self.shape[0])
        held = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
        rows = x.reshape((-1, self.shape[0])).astype(held)
        y = _product(self.key, rows, jnp.asarray(self.scale, held), self.shape[1], self.law)
        return y.reshape((*x.shape[:-1], self.shape[1])).astype(x.dtype)


def rows_of(where: str, argument: str, x: Any, n: int) -> jax.Array:
    """An array of real rows of n entries, or an error."""
    if not isinstance(x, (jax.Array, np.ndarray)):
        raise checks.wrong_type(where, argument, "an array", x)
    if x.ndim < 1 or x.shape[-1] != n:
        way_out = "Vectors are rows here: pass x.T." if n in x.shape else ""
        raise checks.bad(where, argument, f"of shape (..., {n})", x.shape, way_out)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise checks.wrong_type(
            where, argument, "of real floating-point numbers", x.dtype, "Cast it: x.astype(jnp.float32)."
        )
    return jnp.asarray(x)


def _make(where: str, key: Any, shape: Any, argument: str, scale: Any, law: str) -> ImplicitMatrix:
    dims = checks.shape(where, "shape", shape)
    if len(dims) != 2 or 0 in dims:
        raise checks.bad(where, "shape", "(n_in, n_out), both at least 1", shape)
    key = checks.require_threefry(where, "key", key)
    number = checks.number(where, argument, scale, above=0.0)
    return ImplicitMatrix(key, number, (dims[0], dims[1]), law)


def gaussian(key: Any, shape: tuple[int, int], stddev: Any) -> ImplicitMatrix:
    """A matrix of iid N(0, stddev^2) entries that is never formed.

    Arguments:
        key: a threefry key; one key, one matrix, one call.
        shape: (n_in, n_out); applied as x @ W.
        stddev: standard deviation of the entries, above 0: sqrt(sigma_w^2 / n_in).

    Cost per call O((n_in + n_out) rows^2) and memory O((n_in + n_out) rows), instead of n_in n_out rows.
    Exact in law, forward and backward jointly, for any number of rows. The matrix belongs to the one call:
    a matrix used twice (tied weights) needs both products conditioned on each other, which this does not do.

    Example:
        >>> import jax, jaxinit as ji
        >>> def loss(x):
        ...     w = ji.implicit.gaussian(jax.random.key(0), (1_000_000, 1_000_000), stddev=1e-3)
        ...     return (w(x) ** 2).mean()
        >>> jax.grad(loss)(jax.numpy.ones((2, 1_000_000))).shape
        (2, 1000000)
    """
    return _make("implicit.gaussian", key, shape, "stddev", stddev, "gaussian")


def haar(key: Any, shape: tuple[int, int], scale: Any = 1.0) -> ImplicitMatrix:
    """A uniformly distributed (semi-)orthogonal matrix, times `scale`, that is never formed.

    The smaller side is orthonormal: W W^T = scale^2 I for n_in <= n_out, W^T W = scale^2 I otherwise.
    Arguments, cost and limits as `gaussian`.

    Example:
        >>> import jax, jaxinit as ji
        >>> x = jax.numpy.ones((1, 4096)) / 64
        >>> y = ji.implicit.haar(jax.random.key(0), (4096, 4096))(x)
        >>> round(float((y**2).sum()), 5)
        1.0
    """
    return _make("implicit.haar", key, shape, "scale", scale, "haar")
