"""The parameters of a model without drawing them: the laws of those whose law is known, the arrays of the others."""

from __future__ import annotations

from typing import Any

import jax

from jaxinit.probe._drawn import Drawn, laws
from jaxinit.probe._products import Products
from jaxinit.probe._wanted import want

__all__ = ["sketch"]


def sketch(products: Products, args: Any, key: Any) -> tuple[list[Drawn | jax.Array], Any]:
    """(leaves, state): each parameter's law, or the parameter drawn from `key` where its law is not known (constants).

    Nothing that only laws need is computed. `args` are the call's arguments, of which initializers use the shapes.

    Example:
        >>> import jax, jax.numpy as jnp, flax.linen as nn
        >>> from jaxinit.probe import products, sketch
        >>> x = jnp.ones((4, 100))
        >>> (bias, kernel), _ = sketch(products(nn.Dense(2), (x,)), (x,), jax.random.key(0))
        >>> bias.tolist(), kernel.distribution, round(kernel.stddev, 6)
        ([0.0, 0.0], 'truncated_normal', 0.1)
    """
    program, shape = jax.make_jaxpr(products.model.init, return_shape=True)(key, args)
    found: list[Any] = list(laws(program))
    count = len(products.names)
    unknown = [n >= count or law is None for n, law in enumerate(found)]
    with jax.numpy_dtype_promotion("standard"):
        outs = want(program, unknown)([key, *jax.tree.leaves(args)])
    leaves = [out if missing else law for out, law, missing in zip(outs, found, unknown, strict=True)]
    state = jax.tree.unflatten(jax.tree.structure(shape[1]), leaves[count:])
    return leaves[:count], state
