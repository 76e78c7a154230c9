"""One matrix that a program multiplies again and again, never formed: what is known of it is threaded through.

Every product is drawn given all products before it, on both sides, and those of the reverse pass given all of the
forward pass too (`jaxinit.implicit._known` has the law). A thread begins where the program is given the matrix, goes
through the calls and loops in which the matrix is multiplied, and is settled at the end of that program: with the
gradients, the reverse pass receives what the forward pass has come to know, adds the gradients' own products to it on
the way back, and leaves it where the thread began.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.struct import leaf, record
from jaxinit.implicit._tied import LAWS, step
from jaxinit.probe._layout import exponent, power
from jaxinit.probe._rows import wide

__all__ = ["Thread", "begin", "leveled", "settle", "use"]

#: The exponent of a gradient of which nothing is known yet: below every other.
_NONE = -1000.0


@record
class Thread:
    """What is known of a matrix W, and of the gradient dL/dW.

    `known`: products on both sides, with the orthonormal frames P of what came from the one and Q from the other.
    `slope`, `exponent`: dL/dW = P^T (slope 2^exponent) Q, in the reverse pass. All of it is numbers with fractions:
    integers do not travel with gradients.
    """

    known: Any = leaf()
    slope: Any = leaf()
    exponent: Any = leaf()


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def begin(probe: Any, shape: tuple[int, int], capacity: int, kind: str, scale: float, dtype: Any) -> Thread:
    """A thread of which nothing is known; the cotangent of the probe is `_unformed.FIGURES`.

    `kind`: "gaussian" or "haar"; `capacity`: how many rows all products have together, on either side.
    """
    known = LAWS[kind].empty(shape, capacity, dtype)
    side = capacity if kind == "gaussian" else 2 * capacity
    return Thread(known, jnp.zeros((side, side), dtype), jnp.full((), _NONE, jnp.float32))


def _begin_backward(
    shape: tuple[int, int], capacity: int, kind: str, scale: float, dtype: Any, _: None, thread: Thread
) -> tuple[Any]:
    count, squares = thread.known.squares(scale)
    half = jnp.floor(thread.exponent / 2)  # in two steps: the power alone may be out of range
    size = jnp.sqrt(jnp.sum(jnp.square(thread.slope))) * jnp.exp2(half) * jnp.exp2(thread.exponent - half)
    return (jnp.stack([count, squares, size]).astype(jnp.float32),)


begin.defvjp(lambda probe, *how: (begin(probe, *how), None), _begin_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def use(thread: Thread, key: Any, x: Any, scale: float, left: bool) -> tuple[Any, Thread]:
    """x W, or (left) x W^T, for `x` (rows, n), and the thread that knows of it."""
    return _forward(thread, key, x, scale, left)[0]


def _forward(thread: Thread, key: Any, x: Any, scale: float, left: bool) -> tuple[Any, Any]:
    from_x, x = leveled(x)
    y, known = step(thread.known, key, x, scale, left)
    within = _side(known, left).coordinates(x)
    return (y * power(from_x, y.dtype), Thread(known, thread.slope, thread.exponent)), (key, within, from_x)


def _backward(scale: float, left: bool, saved: Any, cotangents: tuple[Any, Thread]) -> Any:
    key, within, from_x = saved
    d, thread = cotangents
    from_d, d = leveled(d)
    dx, known = step(thread.known, key, d, scale, not left)
    # Right: dL/dW = X^T D. Left: dL/dW = D^T X. Both sides in the coordinates of their frames.
    other = _side(known, not left).coordinates(d)
    added = jnp.matmul(
        *((other.T, within) if left else (within.T, other)), precision=jax.lax.Precision.HIGHEST
    )
    size = (from_x + from_d).astype(jnp.float32)
    top = jnp.maximum(thread.exponent, size)
    slope = thread.slope * jnp.exp2(thread.exponent - top) + added * jnp.exp2(size - top)
    return Thread(known, slope, top), None, dx * power(from_d, dx.dtype)


use.defvjp(_forward, _backward)


@jax.custom_vjp
def settle(threads: Mapping[int, Thread], values: Any) -> Any:
    """The values themselves, after the last product: gradients that come back through it know of all of them."""
    return values


settle.defvjp(lambda threads, values: (values, threads), lambda threads, d: (threads, d))


def leveled(x: Any) -> tuple[Any, Any]:
    """x with a power of two taken out, so that inner products of its rows neither over- nor underflow."""
    x = wide(x)
    taken = exponent(jnp.max(jnp.abs(x)))
    return taken, x * power(-taken, x.dtype)


def _side(known: Any, left: bool) -> Any:
    return known.transposed if left else known
