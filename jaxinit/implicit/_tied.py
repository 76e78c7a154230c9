"""One random matrix used many times, never formed: every product conditioned on all the others."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, record, static
from jaxinit.implicit._known import GaussianKnown, HaarKnown
from jaxinit.implicit._operator import rows_of

Known = GaussianKnown | HaarKnown
LAWS: dict[str, Any] = {"gaussian": GaussianKnown, "haar": HaarKnown}

# How gradients travel. The reverse pass meets the uses of W in reverse order and asks W for products too: with the
# cotangents, on the other side. They must be conditioned on everything that the forward pass has seen, to its end,
# and on the cotangents met before. JAX gives each use the cotangent of the state that it returned, and asks for
# that of the state that it took: arrays of the same shapes, which no derivative needs, since the state enters
# products through laws and not through formulas. So the reverse pass sends its own knowledge of W through them:
# `settle` starts it with all that is known at the end, each use adds its cotangents and hands it on.


def step(known: Known, key: Any, x: jax.Array, scale: Any, left: bool) -> tuple[jax.Array, Known]:
    """x W, or (left) x W^T, for `x` (rows, n), and all that is known then.

    Drawn with the key that the number of products so far names.
    """
    key = jax.random.fold_in(key, known.counts[2].astype(jnp.uint32))
    if left:
        y, known = known.transposed.product(key, x, scale)
        return y, known.transposed
    return known.product(key, x, scale)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _use(known: Known, key: Any, x: jax.Array, scale: jax.Array, left: bool) -> tuple[jax.Array, Known]:
    return step(known, key, x, scale, left)


def _use_forward(known: Known, key: Any, x: jax.Array, scale: jax.Array, left: bool) -> Any:
    y, known = step(known, key, x, scale, left)
    return (y, known), (key, scale, y)


def _use_backward(left: bool, saved: Any, cotangents: tuple[jax.Array, Known]) -> Any:
    key, scale, y = saved
    d, known = cotangents
    dx, further = step(known, key, d, scale, not left)
    dx = jnp.where(known.counts[2] > 0, dx, jnp.nan)  # not settled: nothing is known of the forward pass
    return further, None, dx, jnp.sum(d * y) / scale


_use.defvjp(_use_forward, _use_backward)


@jax.custom_vjp
def _settle(known: Known, x: Any) -> Any:
    return x


def _settle_forward(known: Known, x: Any) -> tuple[Any, Known]:
    return x, known


def _settle_backward(known: Known, d: Any) -> tuple[Known, Any]:
    return known, d


_settle.defvjp(_settle_forward, _settle_backward)


@record
class TiedMatrix:
    """A random matrix W (n_in, n_out) that is used again and again and never formed.

    Each product returns the matrix with what it now knows, to be used for the next one: a thread, as with keys.
    Whatever the order of products and however their arguments depend on earlier ones, they have exactly the law of
    products with one matrix. Composes under jit, vmap, scan and grad.

        y, w = w.right(x)      x @ W,     x (..., n_in)
        x, w = w.left(y)       y @ W.T,   y (..., n_out)

    For a gradient, hand what the loss is made of through `w.settle` when the last product is drawn: the reverse
    pass conditions its products on all of the forward pass. Without it gradients are nan. Do not use one state
    twice: the two would not know of each other.
    """

    known: Any = leaf()
    key: Any = leaf()
    scale: Any = leaf()
    shape: tuple[int, int] = static()
    law: str = static()
    capacity: int = static()

    @property
    def dtype(self) -> Any:
        """Of the rows."""
        return jax.tree.leaves(self.known)[0].dtype

    def right(self, x: jax.Array) -> tuple[jax.Array, TiedMatrix]:
        """x @ W for `x` (..., n_in), and the matrix that knows of it."""
        return self._product(x, False)

    def left(self, y: jax.Array) -> tuple[jax.Array, TiedMatrix]:
        """y @ W.T for `y` (..., n_out), and the matrix that knows of it."""
        return self._product(y, True)

    def settle(self, x: Any) -> Any:
        """`x` itself, array or pytree, after the last product; once.

        Gradients that come back through it know the whole forward pass. The cotangent of the state that the first
        product took (`jax.grad` with respect to the matrix) then holds all that both passes have seen.
        """
        return _settle(self.known, x)

    def materialize(self) -> jax.Array:
        """A whole W (n_in, n_out) from its law given every product seen; those are products with it, to rounding."""
        key = jax.random.fold_in(self.key, jnp.uint32(2**31))
        return self.known.matrix(key, jnp.asarray(self.scale, self.dtype))

    def _product(self, x: jax.Array, left: bool) -> tuple[jax.Array, TiedMatrix]:
        where, argument, n = "TiedMatrix", "y" if left else "x", self.shape[1 if left else 0]
        x = rows_of(where, argument, x, n)
        if x.dtype != self.dtype:
            way_out = f"Cast it, or pass dtype={x.dtype.name!r} to tied()."
            if x.dtype.itemsize < 4:
                way_out = (
                    f"Cast it to {self.dtype}, and the product back: what is known of W keeps its digits."
                )
            raise checks.wrong_type(where, argument, f"of dtype {self.dtype}", x.dtype, way_out)
        rows = x.reshape((-1, n))
        self._check_room(rows.shape[0], left)
        scale = jnp.asarray(self.scale, x.dtype)
        y, known = _use(self.known, self.key, rows, scale, left)
        after = TiedMatrix(known, self.key, self.scale, self.shape, self.law, self.capacity)
        return y.reshape((*x.shape[:-1], y.shape[1])), after

    def _check_room(self, rows: int, left: bool) -> None:
        counts = self.known.counts
        if not checks.is_concrete(counts) or counts.ndim > 1:
            return
        limit = self.capacity if self.law == "gaussian" else 2 * self.capacity
        used = int(np.asarray(counts)[1 if left else 0])
        if used + min(rows, self.shape[1 if left else 0]) > limit:
            raise checks.bad(
                "implicit.tied", "capacity", f"at least the rows of all products on a side: {used} + {rows} here",
                self.capacity,
            )  # fmt: skip


def tied(
    key: Any, shape: tuple[int, int], scale: Any, *, capacity: int, law: str = "gaussian", dtype: Any = None
) -> TiedMatrix:
    """A random matrix for repeated use that is never formed: weights shared over time, layers or branches.

    Arguments:
        key: a threefry key; one key, one matrix.
        shape: (n_in, n_out); products are x @ W and y @ W.T.
        scale: standard deviation of the entries for "gaussian", factor of the (semi-)orthogonal matrix for "haar".
        capacity: how many rows the products on either side may have in all, those of gradients included: a
            recurrent network of T steps with B inputs needs T * B. Products beyond it are nan.
        law: "gaussian" (iid N(0, scale^2)) or "haar".
        dtype: of the rows, float32 (default) or float64, which needs jax_enable_x64. With fewer digits products would
            contradict each other: cast rows of bfloat16 to float32, and products back.

    Cost per product of B rows O((n_in + n_out) capacity B), memory 2 (n_in + n_out) capacity numbers. Exact in law,
    forward and backward jointly. `jaxinit.implicit._known` has the derivation.

    Example:
        >>> import jax, jaxinit as ji
        >>> w = ji.implicit.tied(jax.random.key(0), (1000, 1000), 1000**-0.5, capacity=20)
        >>> def step(carry, _):
        ...     h, w = carry
        ...     z, w = w.right(jax.numpy.tanh(h))
        ...     return (z, w), None
        >>> def loss(h, w):
        ...     (z, w), _ = jax.lax.scan(step, (h, w), None, length=10)
        ...     return (w.settle(z) ** 2).sum()
        >>> jax.grad(loss)(jax.numpy.ones((2, 1000)), w).shape
        (2, 1000)
    """
    where = "implicit.tied"
    dims = checks.shape(where, "shape", shape)
    if len(dims) != 2 or not all(1 <= n <= checks.MOST for n in dims):
        raise checks.bad(where, "shape", f"(n_in, n_out), both from 1 to {checks.MOST}", shape)
    key = checks.require_threefry(where, "key", key)
    held = _held(where, dtype)
    info = jnp.finfo(held)
    number = checks.number(where, "scale", scale, at_least=float(info.tiny), at_most=float(info.max))
    capacity = checks.integer(where, "capacity", capacity, at_least=1, at_most=checks.MOST)
    checks.choice(where, "law", law, tuple(LAWS))
    try:
        known = LAWS[law].empty((dims[0], dims[1]), capacity, held)
    except jax.errors.JaxRuntimeError:
        size = 2 * sum(dims) * capacity * held.itemsize
        raise checks.bad(
            where, "capacity", f"so small that its buffers fit into memory ({size / 2**30:,.0f} GiB here)", capacity,
            "Steps times inputs, those of the gradient included, are enough.",
        ) from None  # fmt: skip
    return TiedMatrix(known, key, number, (dims[0], dims[1]), law, capacity)


def _held(where: str, dtype: Any) -> Any:
    """The dtype of rows, float32 by default."""
    if dtype is None:
        return jnp.dtype("float32")
    try:
        if isinstance(dtype, jax.Array):
            raise TypeError
        name = jnp.dtype(dtype).name
    except TypeError:
        raise checks.wrong_type(where, "dtype", "a dtype, its name, or None", dtype) from None
    if name not in ("float32", "float64"):
        raise checks.bad(
            where, "dtype", "float32 or float64", name,
            "Cast rows of other dtypes to float32, and products back.",
        )  # fmt: skip
    if name == "float64" and not jax.config.read("jax_enable_x64"):
        raise checks.bad(
            where, "dtype", "float32 while jax_enable_x64 is off", name,
            "Call jax.config.update('jax_enable_x64', True) first.",
        )  # fmt: skip
    return jnp.dtype(name)
