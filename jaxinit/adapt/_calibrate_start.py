"""The parameters that a calibration begins with, drawn in one compiled call."""

from __future__ import annotations

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.initializers import orthogonal
from jaxinit.probe import Product, Products

__all__ = ["STARTS", "Start"]

#: "own": the model's own draw; "orthonormal": kernels with orthonormal rows or columns.
STARTS = ("own", "orthonormal")


class Start:
    """`(key, args, given) -> (leaves, state, squares)`; `squares` is the mean square of each parameter's layers."""

    def __init__(self, products: Products, start: str) -> None:
        self.products = products
        self.redrawn = _kernels(products) if start == "orthonormal" else {}

    def __call__(self, key: Any, args: Any, given: Any) -> tuple[list[Any], Any, list[np.ndarray]]:
        leaves, state, squares = jax.jit(self._begin)(key, args, given)
        return leaves, state, [np.asarray(square, np.float64) for square in squares]

    def _begin(self, key: Any, args: Any, given: Any) -> tuple[list[Any], Any, list[Any]]:
        params, state = (None, None) if given is None else given
        if params is None or state is None:
            drawn, state = self.products.model.init(key, args)
            params = drawn if params is None else params
        leaves = jax.tree.leaves(params)
        for n, product in self.redrawn.items():
            leaves[n] = self._orthonormal(n, product, leaves[n], key)
        return (
            leaves,
            state,
            [_squares(leaf, len(stack)) for leaf, stack in zip(leaves, self.products.stacks, strict=True)],
        )

    def _orthonormal(self, n: int, product: Product, leaf: Any, key: Any) -> Any:
        stack = self.products.stacks[n]
        shape = leaf.shape[len(stack) :]
        rows = product.contracting
        if rows is None or len(rows) == len(shape):
            init = orthogonal()
        else:
            init = orthogonal(in_axis=rows, out_axis=tuple(a for a in range(len(shape)) if a not in rows))
        own = jax.random.fold_in(key, zlib.crc32(self.products.names[n].encode()))
        keys = jax.random.split(own, math.prod(stack))
        drawn = jax.vmap(lambda k: init(k, shape, leaf.dtype))(keys).reshape(leaf.shape)
        alive = (_squares(leaf, len(stack)) > 0).reshape(stack + (1,) * len(shape))
        return jnp.where(alive, drawn, leaf)


def _kernels(products: Products) -> dict[int, Product]:
    """The parameters that are matrices at the first product that they stand in alone."""
    found: dict[int, Product] = {}
    for product in products.products:
        if len(product.kernel) == 1 and product.kind != "gather":
            (layer,) = product.kernel
            rank = len(products.shapes[layer.parameter]) - len(products.stacks[layer.parameter])
            if rank >= 2:
                found.setdefault(layer.parameter, product)
    return found


def _squares(leaf: Any, stack: int) -> Any:
    """The mean square of each layer, in float32 or better; 0 for numbers that are not real."""
    axes = tuple(range(stack, leaf.ndim))
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.zeros(leaf.shape[:stack])
    wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    return jnp.mean(jnp.square(wide), axis=axes)
