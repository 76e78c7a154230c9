"""The values of products themselves, for whoever compares them from one step of training to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.probe._evaluate import Watched
from jaxinit.probe._layout import Layout
from jaxinit.probe._products import Products
from jaxinit.probe._program import streams

__all__ = ["values"]


class _Kept(Watched):
    """A program whose rows are the values at its places, in float32."""

    def _tap(self, x: Any, place: int, probe: Any) -> tuple[Any, Any]:
        return x, x.astype(jnp.float32)

    def _absent(self, place: int, depth: int) -> Any:
        at = self.places[place]
        return jnp.zeros((*(loop.length for loop in at.loops[depth:]), *at.shape), jnp.float32)


def values(products: Products) -> Callable[[Sequence[Any], Any, Any, Any], tuple[Any, list[Any]]]:
    """`(leaves, state, args, key) -> (output, values)`: each product's value, float32, repetitions along first axes.

    Pure and traceable; zeros at a place in a branch that is not taken. `args` is the tuple of the call's arguments.

    Example:
        >>> import jax, jax.numpy as jnp, flax.linen as nn
        >>> from jaxinit.probe import products, values
        >>> model, x = nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(2)]), jnp.ones((4, 5))
        >>> leaves = jax.tree.leaves(model.init(jax.random.key(0), x))
        >>> output, found = values(products(model, (x,)))(leaves, {}, (x,), jax.random.key(0))
        >>> [v.shape for v in found], bool((output == found[1]).all())
        ([(4, 3), (4, 2)], True)
    """
    plan = products.traced.plan
    places = list(dict.fromkeys(p.place for p in products.products))
    kept = _Kept(plan.block, plan.places, places, Layout(1, False, frozenset()))

    def run(leaves: Sequence[Any], state: Any, args: Any, key: Any) -> tuple[Any, list[Any]]:
        with jax.numpy_dtype_promotion("standard"):
            rest = jax.tree.leaves((state, args, streams(key)["dropout"]))
            outs, rows = kept([*leaves, *rest], kept.probes())
        found = []
        for product in products.products:
            index = tuple(slice(None) if i is None else i for i in product.at)
            found.append(rows[product.place][index])
        return jax.tree.unflatten(products.traced.output, outs), found

    return run
