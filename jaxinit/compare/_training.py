"""The compiled programs of a study: steps, and figures of held-out data."""

from __future__ import annotations

import dataclasses
import functools
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


class Work(NamedTuple):
    """What all runs of a study share.

    `x`, `y`: all training examples. `marks`: the steps after which held-out data are looked at, 0 first. `goal`:
    `(loss, accuracy)`, levels at which a run stops. `watched`: examples and targets on which signals are taken, or
    None.
    """

    x: Any
    y: Any
    marks: Any
    goal: tuple[Any, Any]
    watched: tuple[Any, Any] | None


class Figures(NamedTuple):
    """Of a run: losses by step; loss, accuracy and signals by evaluation. nan where the program has not been."""

    losses: Any
    loss: Any
    accuracy: Any
    signals: dict[str, Any]


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

    def stretch(
        self, carry: Carry, rate: Any, key: Any, order: Any, work: Work, first: Any, last: Any, held_out: Any,
        see: Callable[..., dict[str, Any]],
    ) -> tuple[Carry, Figures]:  # fmt: skip
        """Train from evaluation to evaluation, `first` up to `last` (not included), and look at held-out data at each.

        Args:
            carry: of the run.
            rate: the learning rate, a scalar.
            key: noise of step t (dropout) is drawn from fold_in(key, t).
            order: `(steps, batch)` examples of each step.
            work: what all runs share.
            first, last: evaluation e comes after `work.marks[e]` steps. A run that has ended takes no more of them.
            held_out: `(x, y, weight, number)` as `evaluate` takes them.
            see: signals of `(carry, rate, *work.watched)`, if there is something to watch.
        """
        steps, marks = order.shape[0], work.marks
        watched = {} if work.watched is None else jax.eval_shape(see, carry, rate, *work.watched)
        nans = functools.partial(jnp.full, fill_value=jnp.nan)
        blank = Figures(
            losses=nans(steps, dtype=jnp.float32),
            loss=nans(marks.size, dtype=jnp.float32),
            accuracy=nans(marks.size, dtype=jnp.float32),
            signals={name: nans((marks.size, *v.shape), dtype=v.dtype) for name, v in watched.items()},
        )

        def more(loop: Any) -> Any:
            e, now, _ = loop
            return (e < last) & now.moving

        def onward(loop: Any) -> Any:
            e, now, figures = loop
            begin, end = marks[jnp.maximum(e - 1, 0)], marks[e]
            now, losses = self.advance(now, figures.losses, rate, key, order, work, begin, end)
            loss, accuracy = self.evaluate(now, *held_out)
            step = jnp.arange(steps)
            finite = jnp.isfinite(loss) & (jnp.isfinite(losses) | (step < begin) | (step >= end)).all()
            there = (loss <= work.goal[0]) | (accuracy >= work.goal[1])
            signals = {} if work.watched is None else see(now, rate, *work.watched)
            figures = Figures(
                losses,
                figures.loss.at[e].set(loss),
                figures.accuracy.at[e].set(accuracy),
                {name: figures.signals[name].at[e].set(v) for name, v in signals.items()},
            )
            return e + 1, now._replace(moving=now.moving & finite & ~there), figures

        _, carry, figures = lax.while_loop(more, onward, (jnp.asarray(first), carry, blank))
        return carry, figures

    def advance(
        self, carry: Carry, losses: Any, rate: Any, key: Any, order: Any, work: Work, begin: Any, end: Any
    ) -> tuple[Carry, Any]:
        """Take the steps from `begin` up to `end` (not included), and put their losses in their places."""
        with jax.numpy_dtype_promotion("standard"):
            optimizer = self.optimizer(rate)

        def loss(params: Any, state: Any, batch: Any, targets: Any, noise: Any) -> Any:
            outputs, state = self.model.apply(params, state, batch, True, noise)
            return jnp.mean(self.task.losses(outputs, targets)), state

        def step(k: Any, loop: Any) -> Any:
            now, losses = loop
            noise = jax.random.fold_in(key, now.taken)
            batch, targets = work.x[order[k]], work.y[order[k]]
            with jax.numpy_dtype_promotion("standard"):
                (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(
                    now.params, now.state, batch, targets, noise
                )
                updates, memory = optimizer.update(gradient, now.memory, now.params)
                params = optax.apply_updates(now.params, updates)
            after = jax.tree.map(_like, Carry(params, state, memory, now.taken + 1, now.moving), now)
            return after, losses.at[k].set(value.astype(losses.dtype))

        return lax.fori_loop(begin, end, step, (carry, losses))

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
