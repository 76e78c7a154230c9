"""One seed of a probe as a pure function: draw, run forward and backward, reduce."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxinit.models import Marked
from jaxinit.probe._evaluate import Watched
from jaxinit.probe._layout import Layout
from jaxinit.probe._parameters import parameter_rows, updates_of
from jaxinit.probe._plan import Plan
from jaxinit.probe._treatment import Treatment
from jaxinit.probe._unformed import Unformed
from jaxinit.probe._wanted import want

__all__ = ["Measure", "Program", "streams"]

#: Keys of one seed, by what they are for: distinct from the small numbers that models fold in.
_STREAMS = {"inputs": 0x6A780001, "dropout": 0x6A780002, "loss": 0x6A780003}


def streams(key: Any) -> dict[str, Any]:
    """The keys of one seed; the seed's own key draws the parameters."""
    return {name: jax.random.fold_in(key, n) for name, n in _STREAMS.items()}


class Measure:
    """`(params, state, args, labels, keys) -> statistics`, for a traced and planned model.

    Attributes:
        loss: `(output, labels, key) -> scalar`, or None to measure the forward pass only.
        treatment: of parameters that are never formed; None where all are.
    """

    def __init__(
        self,
        plan: Plan,
        watched: Watched,
        layout: Layout,
        output: Any,
        loss: Callable[[Any, Any, Any], Any] | None,
        optimizer: Any,
        treatment: Treatment | None = None,
    ) -> None:
        self.plan, self.watched, self.layout = plan, watched, layout
        self.output, self.loss, self.optimizer = output, loss, optimizer
        self.treatment = treatment
        self.laws = {} if treatment is None else treatment.layers
        self.stacks = [len(plan.stacked.get(n, ())) for n in range(len(plan.parameters))]

    @jax.numpy_dtype_promotion("standard")  # the model was traced so, and its derivatives are taken here
    def __call__(
        self, params: Any, state: Any, args: Any, labels: Any, keys: dict[str, Any]
    ) -> dict[str, Any]:
        leaves, structure = jax.tree.flatten(params, is_leaf=_is_unformed)
        rest = jax.tree.leaves((state, args, keys["dropout"]))
        arrays = [leaf.probe if _is_unformed(leaf) else leaf for leaf in leaves]
        trained = [n for n, leaf in enumerate(arrays) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

        def objective(moved: list[Any], probes: dict[int, Any]) -> tuple[Any, dict[int, Any]]:
            inputs = list(leaves)
            for n, leaf in zip(trained, moved, strict=True):
                inputs[n] = Unformed(leaves[n].key, leaf) if _is_unformed(leaves[n]) else leaf
            outs, rows = self.watched([*inputs, *rest], probes)
            if self.loss is None:
                return jnp.zeros(()), rows
            return self.loss(jax.tree.unflatten(self.output, outs), labels, keys["loss"]), rows

        moved, probes = [arrays[n] for n in trained], self.watched.probes()
        if self.loss is None:
            _, rows = objective(moved, probes)
            figures = self._figures(rows, None)
            figures.update(_named(parameter_rows(leaves, None, None, self.stacks, self.laws)))
            return figures
        (slopes, back), rows = jax.grad(objective, argnums=(0, 1), has_aux=True)(moved, probes)
        figures = self._figures(rows, back)
        gradients = [jnp.zeros_like(leaf) for leaf in arrays]
        for n, slope in zip(trained, slopes, strict=True):
            gradients[n] = slope
        updates = None
        if self.optimizer is not None:
            made = updates_of(self.optimizer, jax.tree.unflatten(structure, gradients), params)
            updates = jax.tree.leaves(made)
        figures.update(_named(parameter_rows(leaves, gradients, updates, self.stacks, self.laws)))
        return figures

    def _figures(self, forward: dict[int, Any], backward: dict[int, Any] | None) -> dict[str, Any]:
        """Statistics by name, (rows, entries), from the rows of each place."""
        figures = self.layout.statistics(_stack(forward, self.watched.watched), False)
        if backward is not None:
            figures |= self.layout.statistics(_stack(backward, self.watched.watched), True)
        return figures


class Program:
    """`(key, data) -> statistics` of the network that the key names: what `ensemble.run` takes.

    `drawn`: what `model.init` was traced to, for a key and arguments.
    """

    def __init__(
        self,
        model: Marked,
        measure: Measure,
        draw: Callable[[Any, Any], Any] | None,
        drawn: core.ClosedJaxpr,
        structure: Any,
    ) -> None:
        self.model, self.measure, self.draw = model, measure, draw
        self._drawn, self._structure = want(drawn, [True] * len(drawn.jaxpr.outvars)), structure

    @jax.numpy_dtype_promotion("standard")
    def init(self, key: Any, args: Any) -> Any:
        """The parameters and the state of the network that the key names: those of `model.init`."""
        return jax.tree.unflatten(self._structure, self._drawn([key, *jax.tree.leaves(args)]))

    def __call__(self, key: Any, data: tuple[Any, Any, Any]) -> dict[str, Any]:
        args, labels, given = data
        keys = streams(key)
        if self.draw is not None:
            args = self.draw(keys["inputs"], args)
        treatment = self.measure.treatment
        init = self.init if treatment is None else treatment.init
        params, state = init(key, args) if given is None else given
        return self.measure(params, state, args, labels, keys)


def _is_unformed(leaf: Any) -> bool:
    return isinstance(leaf, Unformed)


def _stack(rows: dict[int, Any], order: Sequence[int]) -> Any:
    return jnp.concatenate([rows[p].reshape((-1, rows[p].shape[-1])) for p in order])


def _named(figures: dict[str, Any]) -> dict[str, Any]:
    return {f"parameter {name}": value for name, value in figures.items()}
