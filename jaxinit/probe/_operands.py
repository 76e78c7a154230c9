"""The signal in a product as the rows that a matrix is multiplied with, and the value of the product from theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit.probe._drawn import Drawn
from jaxinit.probe._rows import wide

__all__ = ["Again", "Product", "kept_axes", "matrix_shape", "rows_of", "taken_axes", "tap_of"]


class Again(NamedTuple):
    """How a matrix that is multiplied again is here: whether it is W^T, and in which order the axes that are summed
    over, and the others, are those of W."""

    left: bool
    taken: tuple[int, ...]
    kept: tuple[int, ...]


class Product(NamedTuple):
    """An equation that multiplies a parameter: which, its law, which operand it is; the shapes of the parameter and of
    the value, and the axis along which they stand beside those of the parameters that it is joined with."""

    parameter: int
    law: Drawn
    operand: int
    weight: tuple[int, ...]
    out: tuple[int, ...]
    axis: int
    again: Again | None = None


def is_convolution(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name == "conv_general_dilated"


def taken_axes(eqn: core.JaxprEqn, operand: int, ndim: int) -> tuple[int, ...]:
    """The axes of the parameter that the product sums over; of a lookup, that of its rows."""
    if eqn.primitive.name == "gather":
        return tuple(eqn.params["dimension_numbers"].start_index_map)
    if is_convolution(eqn):
        feature = eqn.params["dimension_numbers"].rhs_spec[0]
        return tuple(n for n in range(ndim) if n != feature)
    return tuple(eqn.params["dimension_numbers"][0][operand])


def kept_axes(eqn: core.JaxprEqn, operand: int, ndim: int) -> tuple[int, ...]:
    """The axes of the parameter that the value has."""
    members = () if eqn.primitive.name != "dot_general" else eqn.params["dimension_numbers"][1][operand]
    taken = taken_axes(eqn, operand, ndim)
    return tuple(n for n in range(ndim) if n not in (*taken, *members))


def matrix_shape(
    eqn: core.JaxprEqn, operand: int, weight: Sequence[int], out: Sequence[int]
) -> tuple[int, int, int]:
    """Of a product with a parameter of this shape: rows of the signal (patches), entries in, entries out; of one member
    where it is a batch of products (or groups of channels)."""
    n_in = max(math.prod(weight[n] for n in taken_axes(eqn, operand, len(weight))), 1)
    n_out = max(math.prod(weight[n] for n in kept_axes(eqn, operand, len(weight))), 1)
    members = max(math.prod(weight), 1) // n_in // n_out
    rows = math.prod(out) // n_out // members
    if is_convolution(eqn):
        n_out //= eqn.params["feature_group_count"]
    return rows, n_in, n_out


def rows_of(eqn: core.JaxprEqn, product: Product, x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The rows that the matrix is multiplied with, of each member of a batch if it is one of matrices, and what makes
    the value of the products."""
    return (_patches if is_convolution(eqn) else _columns)(eqn, product, x)


def _columns(eqn: core.JaxprEqn, product: Product, x: Any) -> tuple[Any, Callable[[Any], Any]]:
    contracted, batch = eqn.params["dimension_numbers"]
    taken, members = contracted[1 - product.operand], batch[1 - product.operand]
    sizes = [product.weight[n] for n in kept_axes(eqn, product.operand, len(product.weight))]
    order = None if product.again is None else np.argsort(product.again.kept)
    if product.again is not None:
        taken = [taken[n] for n in product.again.taken]
        sizes = [sizes[n] for n in product.again.kept]
    kept = [n for n in range(x.ndim) if n not in (*taken, *members)]
    counts = [math.prod(x.shape[n] for n in axes) for axes in (members, kept, taken)]
    rows = jnp.transpose(wide(x), (*members, *kept, *taken)).reshape(counts if members else counts[1:])

    def arranged(y: Any) -> Any:
        if order is not None and list(order) != sorted(order):
            y = jnp.transpose(y.reshape((len(y), *sizes)), (0, *(1 + order))).reshape(y.shape)
        return (y if product.operand == 1 else jnp.swapaxes(y, -1, -2)).reshape(product.out)

    return rows, arranged


def tap_of(eqn: core.JaxprEqn, product: Product, x: Any) -> Any:
    """Of a convolution with a kernel that is 0 but at one place of the window: the rows that are multiplied there."""
    spec, params = eqn.params["dimension_numbers"], eqn.params
    padding = []
    for n, (low, high), step in zip(
        spec.rhs_spec[2:], params["padding"], params["rhs_dilation"], strict=True
    ):
        before = product.law.tap[n] * step
        padding.append((low - before, high - (product.weight[n] - 1) * step + before))
    alone = _windows(x, spec, [1] * len(padding), {**_moves(eqn), "padding": padding})
    return alone.reshape((-1, alone.shape[-1]))


def _moves(eqn: core.JaxprEqn) -> dict[str, Any]:
    """How the window of a convolution goes over the signal."""
    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
    return {name: eqn.params[name] for name in names}


def _windows(x: Any, spec: Any, window: Sequence[int], moves: dict[str, Any]) -> Any:
    """What is seen through the window at each place, along the last axis: channels, and of each the window's places."""
    found = jax.lax.conv_general_dilated_patches(
        jnp.transpose(wide(x), spec.lhs_spec), window, precision=jax.lax.Precision.HIGHEST, **moves
    )
    return jnp.moveaxis(found, 1, -1)


def _patches(eqn: core.JaxprEqn, product: Product, x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Of a convolution: the patches at all places. In which order a patch has its entries is no matter to matrices that
    have the same law in any order."""
    spec, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    found = _windows(x, spec, [product.weight[n] for n in spec.rhs_spec[2:]], _moves(eqn))
    rows = found.reshape((-1, groups, found.shape[-1] // groups))

    def arranged(y: Any) -> Any:
        y = y if groups == 1 else jnp.swapaxes(y, 0, 1)
        y = jnp.moveaxis(y.reshape((*found.shape[:-1], -1)), -1, 1)
        return jnp.transpose(y, [spec.out_spec.index(n) for n in range(y.ndim)])

    return (rows[:, 0] if groups == 1 else jnp.swapaxes(rows, 0, 1)), arranged
