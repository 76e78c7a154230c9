"""The Frobenius norm of a weight gradient, from the vectors that it is made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.scaled import exponent_of, pow2
from jaxinit.implicit import _frames


def from_grams(of_x: jax.Array, of_d: jax.Array) -> jax.Array:
    """||X^T D||_F^2 = tr(X X^T D D^T), from both matrices of inner products of rows."""
    return jnp.maximum(jnp.sum(of_x * of_d), 0)


def squared(x: jax.Array, d: jax.Array) -> jax.Array:
    """||X^T D||_F^2 of rows `x` (rows, n_in) and `d` (rows, n_out) by the shorter of two ways."""
    (rows, n_in), n_out = x.shape, d.shape[1]
    if rows * (n_in + n_out) < n_in * n_out:
        return from_grams(_frames.gram(x, x), _frames.gram(d, d))
    return jnp.sum(jnp.square(jnp.matmul(x.T, d, precision=jax.lax.Precision.HIGHEST)))


def gradient_norm(x: jax.Array, d: jax.Array) -> jax.Array:
    """The Frobenius norm of dL/dW of y = x @ W, without the matrix dL/dW where that is shorter:

        ||dL/dW||_F^2 = ||X^T D||_F^2 = tr(X X^T D D^T) = sum_ab <x_a, x_b> <d_a, d_b>.

    Arguments:
        x: (..., n_in), what W was multiplied with; of a matrix used several times, that of all uses, stacked.
        d: (..., n_out), dL/dy in the same order.

    Returns:
        A number, float32 or float64. Squares neither overflow nor underflow on the way. What lies
        below the rounding of its largest terms is lost: 3e-4 of sum_a |x_a| |d_a| in float32, where the terms cancel.

    Raises:
        ValueError, TypeError: leading axes that differ, or what is no array of real floating-point numbers.

    Example:
        >>> import jax, jaxinit as ji
        >>> x, d = jax.numpy.ones((2, 1_000_000)), jax.numpy.full((2, 1_000_000), 1e-30)
        >>> print(f"{ji.implicit.gradient_norm(x, d):.4g}")  # of a matrix of 4 TB
        2e-24
    """
    where = "implicit.gradient_norm"
    for name, v in (("x", x), ("d", d)):
        if not isinstance(v, (jax.Array, np.ndarray)) or not jnp.issubdtype(v.dtype, jnp.floating):
            raise checks.wrong_type(where, name, "an array of real floating-point numbers", v)
    x, d = jnp.asarray(x), jnp.asarray(d)
    if x.ndim < 1 or d.ndim < 1 or x.shape[:-1] != d.shape[:-1]:
        axes = ", ".join([*map(str, x.shape[:-1]), "n_out"])
        raise checks.bad(where, "d", f"of shape ({axes}), as x", d.shape)
    dtype = jnp.float64 if jnp.float64 in (x.dtype, d.dtype) else jnp.float32
    (x, from_x), (d, from_d) = (_leveled(v.reshape((-1, v.shape[-1])).astype(dtype)) for v in (x, d))
    return jnp.ldexp(jnp.sqrt(squared(x, d)), from_x + from_d)


def _leveled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x with its largest entry in [1/2, 1), and the exponent taken out."""
    exponent = exponent_of(x.ravel(), axis=0)
    half = exponent // 2  # the power alone may be out of range
    return x * pow2(-half, x.dtype) * pow2(half - exponent, x.dtype), exponent
