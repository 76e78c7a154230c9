"""The parameters that a calibration begins with, drawn in one compiled call."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.lapack import qr
from jaxinit.probe import Product, Products

__all__ = ["STARTS", "begin"]

#: "own": the model's own draw; "orthonormal": kernels with orthonormal rows or columns.
STARTS = ("own", "orthonormal")
#: Of the key that draws orthonormal kernels: distinct from the small numbers that models fold in.
_STREAM = 0x6A780101


def begin(
    products: Products, start: str, key: Any, args: Any, given: Any
) -> tuple[list[Any], Any, list[np.ndarray]]:
    """(leaves, state, squares): the parameters drawn, or those of `given` = (params, state or None), and the mean
    square of each layer of each."""
    if given is not None and given[1] is None and not jax.tree.leaves(products.abstract[1]):
        given = given[0], products.abstract[1]  # nothing in it
    if given is None or given[1] is None or start == "orthonormal":
        leaves, state = _begin(products, start, key, args, given)
    else:
        leaves, state = jax.tree.leaves(given[0]), given[1]
    return leaves, state, [_squares(v, len(s)) for v, s in zip(leaves, products.stacks, strict=True)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begin(products: Products, start: str, key: Any, args: Any, given: Any) -> tuple[list[Any], Any]:
    params, state = (None, None) if given is None else given
    if params is None or state is None:
        drawn, state = products.model.init(key, args)
        params = drawn if params is None else params
    leaves = jax.tree.leaves(params)
    if start == "orthonormal":
        for n, drawn in _orthonormal(products, key).items():
            axes = tuple(range(len(products.stacks[n]), drawn.ndim))
            alive = jnp.any(leaves[n] != 0, axis=axes, keepdims=True)
            leaves[n] = jnp.where(alive, drawn.astype(leaves[n].dtype), leaves[n])
    return leaves, state


def _orthonormal(products: Products, key: Any) -> dict[int, Any]:
    """Kernels that are uniform among those with orthonormal rows or columns; every layer of a stack has its own.

    One draw serves all: each sampler that is compiled costs as much as the rest of a small model.
    """
    chosen = _kernels(products)
    if not chosen:
        return {}
    counts = [math.prod(products.shapes[n]) for n in chosen]
    normal = jax.random.normal(jax.random.fold_in(key, _STREAM), (sum(counts),), jnp.float32)
    parts = jnp.split(normal, np.cumsum(counts)[:-1])
    out = {}
    for (n, product), part in zip(chosen.items(), parts, strict=True):
        stack = products.stacks[n]
        shape = products.shapes[n][len(stack) :]
        given = product.contracting
        summed = given if given is not None and len(given) < len(shape) else tuple(range(len(shape) - 1))
        order = (*summed, *(a for a in range(len(shape)) if a not in summed))
        rows = math.prod(shape[a] for a in summed)
        columns = math.prod(shape) // rows
        q, r = qr(part.reshape(-1, max(rows, columns), min(rows, columns)))
        q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[:, None, :]
        q = (q if rows >= columns else q.mT).reshape(-1, *(shape[a] for a in order))
        out[n] = jnp.transpose(q, (0, *(1 + np.argsort(order)))).reshape(products.shapes[n])
    return out


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


def _squares(leaf: Any, stack: int) -> np.ndarray:
    """The mean square of each layer; 1 for numbers that are not real."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return np.ones(leaf.shape[:stack])
    value = np.asarray(leaf)
    wide = value.astype(np.promote_types(np.float32, value.dtype) if value.dtype.kind == "f" else np.float32)
    return np.asarray(np.mean(np.square(wide), axis=tuple(range(stack, leaf.ndim)), dtype=np.float64))
