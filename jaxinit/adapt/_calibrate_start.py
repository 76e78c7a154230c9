"""The parameters that a calibration begins with."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.lapack import qr
from jaxinit.adapt._calibrate_case import placed
from jaxinit.probe import Product, Products

__all__ = ["STARTS", "begin"]

#: "own": the model's own draw; "orthonormal": kernels with orthonormal rows or columns.
STARTS = ("own", "orthonormal")
#: Of the key that draws orthonormal kernels: distinct from the small numbers that models fold in.
_STREAM = 0x6A780101
#: From so many columns on an accelerator is worth its compilation.
_LARGE = 1024


def begin(
    products: Products, start: str, key: Any, args: Any, given: Any
) -> tuple[list[Any], Any, list[np.ndarray]]:
    """(leaves, state, squares): the parameters drawn, or those of `given` = (params, state or None), and the mean
    square of each layer of each."""
    if given is not None and given[1] is None and not jax.tree.leaves(products.abstract[1]):
        given = given[0], products.abstract[1]  # nothing in it
    if given is None or given[1] is None:
        drawn, state = _drawn(products, key, args)
        given = (drawn if given is None else given[0]), state
    leaves, state = jax.tree.leaves(given[0]), given[1]
    if start == "orthonormal":
        for n, product in _kernels(products).items():
            leaves[n] = _orthonormal(products, n, product, leaves[n], key)
    return leaves, state, [_squares(v, len(s)) for v, s in zip(leaves, products.stacks, strict=True)]


@functools.partial(jax.jit, static_argnums=0)
def _drawn(products: Products, key: Any, args: Any) -> tuple[Any, Any]:
    return products.model.init(key, args)


def _orthonormal(products: Products, n: int, product: Product, leaf: Any, key: Any) -> Any:
    """A kernel that is uniform among those with orthonormal rows or columns; every layer of a stack has its own, and
    layers that are 0 stay so. On the host: a program for every shape would take longer to compile than to run."""
    stack = products.stacks[n]
    shape = products.shapes[n][len(stack) :]
    given = product.contracting
    summed = given if given is not None and len(given) < len(shape) else tuple(range(len(shape) - 1))
    order = (*summed, *(a for a in range(len(shape)) if a not in summed))
    rows = math.prod(shape[a] for a in summed)
    columns = math.prod(shape) // rows
    words = np.ravel(jax.random.key_data(key)).tolist()
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([_STREAM, n, *words])))
    normal = generator.standard_normal(
        (math.prod(stack), max(rows, columns), min(rows, columns)), dtype=np.float32
    )
    q, r = np.linalg.qr(normal) if _small(normal) else jax.device_get(_qr(normal))
    q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None, :]
    q = (q if rows >= columns else np.swapaxes(q, 1, 2)).reshape(-1, *(shape[a] for a in order))
    q = np.transpose(q, (0, *(1 + np.argsort(order)))).reshape(products.shapes[n])
    value = np.asarray(leaf)
    alive = np.any(value != 0, axis=tuple(range(len(stack), leaf.ndim)), keepdims=True)
    return placed(np.where(alive, q.astype(leaf.dtype), value), leaf)


def _small(normal: np.ndarray) -> bool:
    return jax.default_backend() == "cpu" or normal.shape[-1] < _LARGE


_qr = jax.jit(qr)


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
