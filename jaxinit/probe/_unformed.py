"""A parameter that is never formed: where its array would be, the key of its products travels through the program."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxinit._core.struct import leaf, record
from jaxinit.implicit import _frames, _gaussian, _haar
from jaxinit.probe import _equations as equations
from jaxinit.probe._drawn import Drawn
from jaxinit.probe._layout import exponent as exponent_of
from jaxinit.probe._layout import power
from jaxinit.probe._lookup import look_up
from jaxinit.probe._rows import wide

__all__ = ["FIGURES", "Unformed", "figures", "matrix_shape", "multiply", "smaller", "stand_in"]

#: What comes with the cotangent of a probe: how many of the normals that the matrix is made of were drawn for the
#: forward product, and the sum of their squares; the norm of the gradient.
FIGURES = ("known", "known_squares", "gradient_norm")
#: Names the key of what is left of a norm, among those of one matrix.
_REST = 0x6A780005


@record
class Unformed:
    """Stands for a parameter: the key of its product, and zeros whose cotangent is `FIGURES`; stacked as it is."""

    key: Any = leaf()
    probe: Any = leaf()


def stand_in(key: Any, path: Sequence[str], stack: Sequence[int]) -> Unformed:
    """That of the parameter of this path, in the network that `key` names, one for each layer stacked in it.

    The key follows from the path alone, so that a network is the same whatever else is asked.
    """
    key = jax.random.fold_in(key, jnp.uint32(zlib.crc32("/".join(path).encode())))
    count = math.prod(stack)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count, dtype=jnp.uint32))
    return Unformed(keys.reshape(tuple(stack)), jnp.zeros((*stack, len(FIGURES)), jnp.float32))


def matrix_shape(eqn: core.JaxprEqn, operand: int) -> tuple[int, int, int]:
    """Of a product `dot_general` or a convolution: rows of the signal (patches), entries in, entries out; of one member
    where it is a batch of products."""
    weight, out = equations.aval(eqn.invars[operand]), equations.aval(eqn.outvars[0])
    if eqn.primitive.name == "conv_general_dilated":
        n_out = weight.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        return out.size // max(n_out, 1), weight.size // max(n_out, 1), n_out
    signal, (contracted, batch) = equations.aval(eqn.invars[1 - operand]), eqn.params["dimension_numbers"]
    n_in = max(math.prod(weight.shape[n] for n in contracted[operand]), 1)
    members = max(math.prod(weight.shape[n] for n in batch[operand]), 1)
    return signal.size // n_in // members, n_in, weight.size // n_in // members


def smaller(rows: int, n_in: int, n_out: int, law: Drawn) -> bool:
    """Whether what the product needs is fewer numbers than the matrix has."""
    wide_side = 2 * max(n_in, n_out) if law.kind == "orthogonal" else n_in + n_out
    return _frames.rank_bound(rows, n_in) * wide_side < n_in * n_out


def figures(
    parameters: Sequence[Unformed], slopes: Sequence[Any], laws: Sequence[Drawn], shapes: Sequence[Any]
) -> Any:
    """By name, for each parameter, a row for each of its layers (of these shapes): "norm", and those of gradients.

    `slopes`: the cotangents of the probes, or None. Of a normal matrix ||W||^2 is the squares that the forward
    product has drawn, and a chi-square of all the others.
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
        if law.kind == "orthogonal":
            rank = min(math.prod(shape[: law.rows]), math.prod(shape[law.rows :]))
            squares = jnp.full(len(row), rank, jnp.float32)
        out.append({**found, "norm": law.stddev * jnp.sqrt(squares)})
    return out


def _chi_square(keys: Any, freedom: Any) -> Any:
    rest = jax.vmap(jax.random.fold_in, (0, None))(keys, jnp.uint32(_REST))
    drawn = jax.vmap(lambda key, shape: jax.random.gamma(key, shape, dtype=jnp.float32))(
        rest, jnp.maximum(freedom, 1) / 2
    )
    return jnp.where(freedom > 0, 2 * drawn, 0)


def multiply(
    eqn: core.JaxprEqn, operand: int, law: Drawn, weight: Unformed, x: Any, seen: dict[Any, Any]
) -> Any:
    """The value of the equation, of x and a parameter of this law.

    `seen`: what was made of signals in this program, so that matrices that are given the same one (queries, keys and
    values) share it.
    """
    if eqn.primitive.name == "gather":
        return look_up(eqn, law.stddev, weight.key, weight.probe, x)
    out, (_, n_in, n_out) = equations.aval(eqn.outvars[0]), matrix_shape(eqn, operand)
    conv = eqn.primitive.name == "conv_general_dilated"
    rows, arranged = (_patches if conv else _columns)(eqn, operand, x)
    kind = "orthogonal" if law.kind == "orthogonal" else "gaussian"

    def product(key: Any, probe: Any, rows: Any, framed: _Framed | None = None) -> Any:
        framed = _framed(jax.lax.stop_gradient(rows)) if framed is None else framed
        return _product(key, probe, rows, framed, (n_in, n_out), law.stddev, kind)

    if rows.ndim == 3:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(weight.key, jnp.arange(len(rows), dtype=jnp.uint32))
        return arranged(jax.vmap(product)(keys, _each(weight.probe, len(rows)), rows)).astype(out.dtype)
    if conv:
        return arranged(product(weight.key, weight.probe, rows)).astype(out.dtype)
    what = id(x), tuple(eqn.params["dimension_numbers"][0][1 - operand])
    if what not in seen:  # x is kept: while it is, no other signal has its id
        seen[what] = x, _framed(jax.lax.stop_gradient(rows))
    return arranged(product(weight.key, weight.probe, rows, seen[what][1])).astype(out.dtype)


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


def _framed(x: Any) -> _Framed:
    exponent, x = _leveled(x)
    return _Framed(exponent, _frames.orthonormalize(x), _frames.gram(x, x))


def _columns(eqn: core.JaxprEqn, operand: int, x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The rows that a matrix is multiplied with, of each member of a batch if it is one of matrices, and what makes the
    value of the products."""
    contracted, batch = eqn.params["dimension_numbers"]
    taken, members, shape = contracted[1 - operand], batch[1 - operand], equations.aval(eqn.outvars[0]).shape
    kept = [n for n in range(x.ndim) if n not in (*taken, *members)]
    sizes = [math.prod(x.shape[n] for n in axes) for axes in (members, kept, taken)]
    rows = jnp.transpose(wide(x), (*members, *kept, *taken)).reshape(sizes if members else sizes[1:])
    return rows, lambda y: (y if operand == 1 else jnp.swapaxes(y, -1, -2)).reshape(shape)


def _patches(eqn: core.JaxprEqn, operand: int, x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Of a convolution: the patches at all places. The order of a patch's entries is no matter to independent ones."""
    spec, weight = eqn.params["dimension_numbers"], equations.aval(eqn.invars[operand])
    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
    found = jax.lax.conv_general_dilated_patches(
        jnp.transpose(wide(x), spec.lhs_spec), [weight.shape[n] for n in spec.rhs_spec[2:]],
        precision=jax.lax.Precision.HIGHEST, **{name: eqn.params[name] for name in names},
    )  # fmt: skip
    found = jnp.moveaxis(found, 1, -1)

    def arranged(y: Any) -> Any:
        y = jnp.moveaxis(y.reshape((*found.shape[:-1], -1)), -1, 1)
        return jnp.transpose(y, [spec.out_spec.index(n) for n in range(y.ndim)])

    return found.reshape((-1, found.shape[-1])), arranged


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
    exponent, d = _leveled(d)
    if kind == "gaussian":
        dx = _gaussian.backward(back, residual, d, scale)
        frame, normals = residual
        used = jnp.any(frame != 0, axis=1, keepdims=True).astype(d.dtype)
        known, squares = jnp.sum(used) * shape[1], jnp.sum(jnp.square(normals) * used)
    else:
        dx = _haar.backward(back, residual, d, shape[0], scale)
        known = squares = jnp.zeros((), d.dtype)
    # dL/dW = X^T D: its squared norm is the trace of (X X^T)(D D^T).
    trace = jnp.maximum(jnp.sum(gram * _frames.gram(d, d)), 0)
    size = jnp.sqrt(trace) * power(from_x, d.dtype) * power(exponent, d.dtype)
    row = jnp.stack([known, squares, size]).astype(jnp.float32)
    return None, row, dx * power(exponent, d.dtype), None


_product.defvjp(_forward, _backward)


def _leveled(x: Any) -> tuple[Any, Any]:
    """x with a power of two taken out, so that inner products of its rows neither over- nor underflow."""
    exponent = exponent_of(jnp.max(jnp.abs(x)))
    return exponent, x * power(-exponent, x.dtype)
