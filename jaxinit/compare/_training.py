"""The compiled programs of a study: steps, and figures of held-out data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxinit.compare._task import Task
from jaxinit.models import Model


class Carry(NamedTuple):
    """Where a run is: all that its next segment needs, beside data, learning rate and key.

    `taken` counts the steps, `moving` says whether the run goes on: it stops for good where it meets a figure
    that is not finite, or reaches its goal.
    """

    params: Any
    state: Any
    memory: Any
    taken: Any
    moving: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """Plain functions of one (model, optimizer, task); the study compiles them, once each.

    Learning rates, keys, goals and data are data.
    """

    model: Model
    optimizer: Callable[[Any], Any]
    task: Task

    def start(self, params: Any, state: Any, rate: Any) -> Carry:
        """The carry before the first step."""
        with jax.numpy_dtype_promotion("standard"):
            carry = Carry(params, state, self.optimizer(rate).init(params), jnp.int32(0), jnp.bool_(True))
        return jax.tree.map(_strong, carry)

    def segment(
        self, carry: Carry, rate: Any, key: Any, x: Any, y: Any, order: Any, count: Any, held_out: Any, goal: Any
    ) -> tuple[Carry, Any, Any, Any]:  # fmt: skip
        """Take `count` steps if the run is moving, then look at held-out data; (carry, losses, loss, accuracy).

        Args:
            carry: of the run.
            rate: the learning rate, a scalar.
            key: noise of step t (dropout) is drawn from fold_in(key, t).
            x, y: all training examples.
            order: `(most steps, batch)` indices of examples.
            count: how many of these steps to take; the losses of the others are nan.
            held_out: `(x, y, weight, number)` as `evaluate` takes them.
            goal: `(loss, accuracy)`, levels at which the run stops.
        """
        carry, losses = self.advance(carry, rate, key, x, y, order, jnp.where(carry.moving, count, 0))
        loss, accuracy = self.evaluate(carry, *held_out)
        finite = jnp.isfinite(loss) & (jnp.isfinite(losses) | (jnp.arange(losses.size) >= count)).all()
        there = (loss <= goal[0]) | (accuracy >= goal[1])
        return carry._replace(moving=carry.moving & finite & ~there), losses, loss, accuracy

    def advance(
        self, carry: Carry, rate: Any, key: Any, x: Any, y: Any, order: Any, count: Any
    ) -> tuple[Carry, Any]:
        """Take `count` steps, step k on the examples `order[k]`, and return carry and losses."""
        with jax.numpy_dtype_promotion("standard"):
            optimizer = self.optimizer(rate)

        def loss(params: Any, state: Any, batch: Any, targets: Any, noise: Any) -> Any:
            outputs, state = self.model.apply(params, state, batch, True, noise)
            return jnp.mean(self.task.losses(outputs, targets)), state

        def step(k: Any, loop: Any) -> Any:
            now, losses = loop
            noise = jax.random.fold_in(key, now.taken)
            batch, targets = x[order[k]], y[order[k]]
            with jax.numpy_dtype_promotion("standard"):
                (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(
                    now.params, now.state, batch, targets, noise
                )
                updates, memory = optimizer.update(gradient, now.memory, now.params)
                params = optax.apply_updates(now.params, updates)
            after = jax.tree.map(_like, Carry(params, state, memory, now.taken + 1, now.moving), now)
            return after, losses.at[k].set(value.astype(losses.dtype))

        return lax.fori_loop(0, count, step, (carry, jnp.full(order.shape[0], jnp.nan, jnp.float32)))

    def evaluate(self, carry: Carry, x: Any, y: Any, weight: Any, number: Any) -> tuple[Any, Any]:
        """Mean loss and accuracy over the first `number` batches `x[n]`, `y[n]`; `weight[n]` is 0 for padding."""

        def add(n: Any, sums: Any) -> Any:
            with jax.numpy_dtype_promotion("standard"):
                outputs, _ = self.model.apply(carry.params, carry.state, x[n], False, None)
                figures = self.task.figures(outputs, y[n])
            # where, not a product: what a padding row yields must not count, whatever it is
            kept = (jnp.sum(jnp.where(weight[n] > 0, f.astype(jnp.float32), 0.0)) for f in figures)
            return tuple(total + new for total, new in zip(sums, kept, strict=True))

        loss, correct = lax.fori_loop(0, number, add, (jnp.float32(0.0), jnp.float32(0.0)))
        return loss / weight.sum(), correct / weight.sum()


def _strong(leaf: Any) -> Any:
    """The same array without weak type, so that the first call compiles for all."""
    leaf = jnp.asarray(leaf)
    return (
        leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
        else lax.convert_element_type(leaf, leaf.dtype)
    )


def _like(new: Any, old: Any) -> Any:
    return new if jnp.issubdtype(old.dtype, jax.dtypes.extended) else jnp.asarray(new).astype(old.dtype)


def epochs(key: Any, examples: int, batch_size: int, steps: int) -> np.ndarray:
    """`(steps, batch_size)` indices: each epoch is a permutation of all examples, cut into whole batches.

    Epoch e is permuted by fold_in(key, e), so a longer run begins like a shorter one.
    """
    per_epoch = examples // batch_size
    count = -(-steps // per_epoch)
    orders = [
        np.asarray(_permutation(jax.random.fold_in(key, epoch), examples))[: per_epoch * batch_size]
        for epoch in range(count)
    ]
    return np.concatenate(orders).reshape(-1, batch_size)[:steps].astype(np.int32)


def _permutation(key: Any, examples: int) -> Any:
    return jax.random.permutation(key, examples)


def batches(
    x: np.ndarray, y: np.ndarray, count: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """`count` batches of `size` examples, weights, and how many of the batches hold an example.

    What is missing is filled with the first example, at weight 0.
    """
    index = np.arange(count * size)
    weight = (index < len(x)).astype(np.float32)
    index = np.where(index < len(x), index, 0)
    shape = (count, size)
    return (
        x[index].reshape(*shape, *x.shape[1:]),
        y[index].reshape(*shape, *y.shape[1:]),
        weight.reshape(shape),
        -(-len(x) // size),
    )
