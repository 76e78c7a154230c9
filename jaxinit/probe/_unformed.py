"""A parameter that is never formed: where its array would be, the key of its products travels through the program."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._core.struct import leaf, record
from jaxinit.implicit import _frames, _gaussian, _haar
from jaxinit.implicit._gradient import from_grams
from jaxinit.probe import equations
from jaxinit.probe._drawn import Drawn
from jaxinit.probe._layout import power
from jaxinit.probe._lookup import filled, look_up, places
from jaxinit.probe._operands import Product, matrix_shape, rows_of, tap_of
from jaxinit.probe._thread import Thread, leveled, use

__all__ = ["FIGURES", "Unformed", "figures", "kind_of", "multiply", "multiply_again", "smaller", "stand_ins"]

#: What comes with the cotangent of a probe: how many of the normals that the matrix is made of were drawn for its
#: products, and the sum of their squares; the norm of the gradient.
FIGURES = ("known", "known_squares", "gradient_norm")
#: Names the key of what is left of a norm, among those of one matrix.
_REST = 0x6A780005


@record
class Unformed:
    """Stands for a parameter: the key of its product, and zeros whose cotangent is `FIGURES`; stacked as it is."""

    key: Any = leaf()
    probe: Any = leaf()


def stand_ins(key: Any, paths: Sequence[Sequence[str]], stacks: Sequence[Sequence[int]]) -> list[Unformed]:
    """Those of the parameters of these paths, in the network that `key` names, one for each layer stacked in each.

    The key of one follows from its path alone, so that a network is the same whatever else is asked. All are made
    together: keys one by one are long to compile.
    """
    names = np.asarray([zlib.crc32("/".join(path).encode()) for path in paths], np.uint32)
    counts = [math.prod(stack) for stack in stacks]
    owners = jax.vmap(jax.random.fold_in, (None, 0))(key, names)[np.repeat(np.arange(len(names)), counts)]
    layers = np.concatenate([np.arange(count, dtype=np.uint32) for count in counts])
    keys, out, start = jax.vmap(jax.random.fold_in)(owners, layers), list[Unformed](), 0
    for stack, count in zip(stacks, counts, strict=True):
        own = keys[start : start + count].reshape(tuple(stack))
        out.append(Unformed(own, jnp.zeros((*stack, len(FIGURES)), jnp.float32)))
        start += count
    return out


def smaller(rows: int, n_in: int, n_out: int, law: Drawn) -> bool:
    """Whether what the product needs is fewer numbers than the matrix has."""
    wide_side = 2 * max(n_in, n_out) if law.rows else n_in + n_out
    return _frames.rank_bound(rows, n_in) * wide_side < n_in * n_out


def matrix_of(law: Drawn, layer: Sequence[int]) -> tuple[int, ...]:
    """The shape of what is random in one layer of a parameter."""
    return tuple(layer[len(law.tap) :])


def figures(
    parameters: Sequence[Unformed], slopes: Sequence[Any], laws: Sequence[Drawn], shapes: Sequence[Any]
) -> Any:
    """By name, for each parameter, a row for each of its layers (of these shapes): "norm", and those of gradients.

    `slopes`: the cotangents of the probes, or None. Of a normal matrix ||W||^2 is the squares that the products have
    drawn, and a chi-square of all the others.
    """
    if not parameters:
        return []
    given = zip(parameters, slopes, strict=True)
    rows = [(p.probe if slope is None else slope).reshape((-1, len(FIGURES))) for p, slope in given]
    keys = jnp.concatenate([p.key.reshape(-1) for p in parameters])
    sizes = [jnp.full(len(r), math.prod(shape), jnp.float32) for r, shape in zip(rows, shapes, strict=True)]
    rest = _chi_square(keys, jnp.concatenate(sizes) - jnp.concatenate(rows)[:, 0])
    out, start = [], 0
    for row, law, shape in zip(rows, laws, shapes, strict=True):
        found = {name: row[:, n] for n, name in enumerate(FIGURES)}
        squares = found["known_squares"] + rest[start : start + len(row)]
        start += len(row)
        if law.rows:
            matrix = matrix_of(law, shape)
            rank = min(math.prod(matrix[: law.rows]), math.prod(matrix[law.rows :]))
            squares = jnp.full(len(row), rank, jnp.float32)
        out.append({**found, "norm": law.stddev * jnp.sqrt(squares)})
    return out


def _chi_square(keys: Any, freedom: Any) -> Any:
    rest = jax.vmap(jax.random.fold_in, (0, None))(keys, jnp.uint32(_REST))
    drawn = jax.vmap(lambda key, shape: jax.random.gamma(key, shape, dtype=jnp.float32))(
        rest, jnp.maximum(freedom, 1) / 2
    )
    return jnp.where(freedom > 0, 2 * drawn, 0)


def multiply(eqn: core.JaxprEqn, product: Product, weight: Unformed, x: Any, seen: dict[Any, Any]) -> Any:
    """The value of the equation, of x and a parameter that is multiplied once.

    `seen`: what was made of signals in this program, so that matrices that are given the same one (queries, keys and
    values) share it.
    """
    law, dtype = product.law, equations.aval(eqn.outvars[0]).dtype
    if eqn.primitive.name == "gather":
        return look_up(eqn, law.stddev, weight.key, weight.probe, x).astype(dtype)
    _, _, n_out = matrix_shape(eqn, product.operand, product.weight, product.out)
    rows, arranged = rows_of(eqn, product, x)
    kind = kind_of(law)

    def drawn(key: Any, probe: Any, rows: Any, framed: _Framed | None = None) -> Any:
        framed = _framed(jax.lax.stop_gradient(rows)) if framed is None else framed
        return _product(key, probe, rows, framed, (rows.shape[-1], n_out), law.stddev, kind)

    if rows.ndim == 3:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(weight.key, jnp.arange(len(rows), dtype=jnp.uint32))
        return arranged(jax.vmap(drawn)(keys, _each(weight.probe, len(rows)), rows)).astype(dtype)
    if law.tap:
        tap = tap_of(eqn, product, x)
        framed = _framed(jax.lax.stop_gradient(rows), jax.lax.stop_gradient(tap))
        return arranged(drawn(weight.key, weight.probe, tap, framed)).astype(dtype)
    if eqn.primitive.name != "dot_general":
        return arranged(drawn(weight.key, weight.probe, rows)).astype(dtype)
    what = id(x), tuple(eqn.params["dimension_numbers"][0][1 - product.operand])
    if what not in seen:  # x is kept: while it is, no other signal has its id
        seen[what] = x, _framed(jax.lax.stop_gradient(rows))
    return arranged(drawn(weight.key, weight.probe, rows, seen[what][1])).astype(dtype)


def multiply_again(
    eqn: core.JaxprEqn, product: Product, weight: Unformed, x: Any, thread: Thread
) -> tuple[Any, Thread]:
    """The value of the equation, of x and a parameter that is multiplied again, and the thread that knows of it."""
    assert product.again is not None
    rows, arranged = (_found if eqn.primitive.name == "gather" else rows_of)(eqn, product, x)
    y, thread = use(thread, weight.key, rows, product.law.stddev, product.again.left)
    return arranged(y).astype(equations.aval(eqn.outvars[0]).dtype), thread


def _found(eqn: core.JaxprEqn, product: Product, index: Any) -> tuple[Any, Callable[[Any], Any]]:
    """A lookup as a product: rows that are 1 where they take a row of the table, and what makes its value."""
    taken, inside = places(eqn, index)
    dtype = jnp.promote_types(jnp.float32, equations.aval(eqn.outvars[0]).dtype)
    rows = jax.nn.one_hot(taken, product.weight[0], dtype=dtype)
    return rows, lambda y: filled(eqn, y, inside).reshape(product.out)


def kind_of(law: Drawn) -> str:
    """Which matrix that is never formed has this law."""
    return "haar" if law.rows else "gaussian"


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _each(probe: Any, count: int) -> Any:
    """A probe for each member of a batch of matrices."""
    return jnp.broadcast_to(probe, (count, *probe.shape))


def _of_all(count: int, _: None, rows: Any) -> tuple[Any]:
    """Their figures together: counts and squares add up, norms as the sides of a right angle."""
    top = jnp.maximum(jnp.max(rows[:, 2]), jnp.finfo(rows.dtype).tiny)
    norm = top * jnp.sqrt(jnp.sum(jnp.square(rows[:, 2] / top)))
    return (jnp.sum(rows, axis=0).at[2].set(norm),)


_each.defvjp(lambda probe, count: (_each(probe, count), None), _of_all)


class _Framed(NamedTuple):
    """What products need of a signal: a power of two taken out of it, the rest's frame and coefficients,
    and its inner products."""

    exponent: Any
    frame: _frames.Frame
    gram: Any


def _framed(x: Any, multiplied: Any = None) -> _Framed:
    """Of a signal; of which only a part is multiplied, where that is given."""
    exponent, x = leveled(x)
    part = x if multiplied is None else multiplied * power(-exponent, x.dtype)
    return _Framed(exponent, _frames.orthonormalize(part), _frames.gram(x, x))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _product(
    key: Any, probe: Any, x: Any, framed: _Framed, shape: tuple[int, int], scale: float, kind: str
) -> Any:
    return _forward(key, probe, x, framed, shape, scale, kind)[0]


def _forward(
    key: Any, probe: Any, x: Any, framed: _Framed, shape: tuple[int, int], scale: float, kind: str
) -> tuple[Any, Any]:
    there, back = jax.random.split(key)
    module = _gaussian if kind == "gaussian" else _haar
    y, residual = module.forward(there, x, shape[1], scale, framed.frame)
    return y * power(framed.exponent, y.dtype), (back, residual, framed.exponent, framed.gram)


def _backward(
    shape: tuple[int, int], scale: float, kind: str, saved: Any, d: Any
) -> tuple[None, Any, Any, None]:
    back, residual, from_x, gram = saved
    exponent, d = leveled(d)
    if kind == "gaussian":
        dx, (known, squares) = _gaussian.backward_and_seen(back, residual, d, scale)
    else:
        dx = _haar.backward(back, residual, d, shape[0], scale)
        known = squares = jnp.zeros((), d.dtype)
    size = jnp.sqrt(from_grams(gram, _frames.gram(d, d))) * power(from_x, d.dtype) * power(exponent, d.dtype)
    row = jnp.stack([known, squares, size]).astype(jnp.float32)
    return None, row, dx * power(exponent, d.dtype), None


_product.defvjp(_forward, _backward)
