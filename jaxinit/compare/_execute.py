"""How the runs of a study are put on the machine: one after the other, or many at once."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.compare._outcomes import Outcomes, Run
from jaxinit.compare._signals import observe
from jaxinit.compare._task import Task
from jaxinit.compare._training import Programs, batches
from jaxinit.models import Model

#: Runs that train together on an accelerator, unless said otherwise.
_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class Goal:
    """Where a run may stop: a level of a validation figure."""

    metric: str
    level: float

    def reached(self, loss: Any, accuracy: Any) -> Any:
        return accuracy >= self.level if self.metric.endswith("accuracy") else loss <= self.level


class Compiled:
    """The programs of one (model, optimizer, task), compiled on first use and counted.

    On CPU runs go one after the other: a `vmap` over weights turns matrix products into slow batched ones. On
    accelerators runs train together, over all devices where their number divides evenly.
    """

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.traces = 0
        self.start = jax.jit(self._counted(programs.start))
        self.advance = jax.jit(self._counted(programs.advance))
        self.evaluate = jax.jit(self._counted(programs.evaluate))
        see = functools.partial(observe, programs)
        self.observe = jax.jit(self._counted(see))
        self.observe_many = jax.jit(self._counted(jax.vmap(see, in_axes=(0, 0, None, None))))
        self.start_many = jax.jit(self._counted(jax.vmap(programs.start)))
        many = jax.vmap(programs.advance, in_axes=(0, 0, 0, None, None, 0, 0))
        self.advance_many = jax.jit(self._counted(many))
        self.evaluate_many = jax.jit(
            self._counted(jax.vmap(programs.evaluate, in_axes=(0, None, None, None)))
        )

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*args: Any) -> Any:
            self.traces += 1
            return function(*args)

        return traced


@functools.lru_cache(maxsize=32)
def _remembered(model: Model, optimizer: Callable[[Any], Any], task: Task) -> Compiled:
    return Compiled(Programs(model, optimizer, task))


def compiled(model: Model, optimizer: Callable[[Any], Any], task: Task) -> Compiled:
    """The programs of a model, optimizer and task, kept for the next study with the same."""
    try:
        return _remembered(model, optimizer, task)
    except TypeError:  # an optimizer that cannot be hashed
        return Compiled(Programs(model, optimizer, task))


def forget() -> None:
    """Drop the programs that are kept."""
    _remembered.cache_clear()


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Validation and test data cut into batches of one shape, so that one program serves both."""

    validation: tuple[Any, ...]
    test: tuple[Any, ...]

    @staticmethod
    def of(data: Any, size: int = 1024) -> HeldOut:
        most = max(len(data.x_validation), len(data.x_test))
        size = min(size, most)
        count = -(-most // size)
        parts = ((data.x_validation, data.y_validation), (data.x_test, data.y_test))
        validation, test = (tuple(map(jnp.asarray, batches(x, y, count, size))) for x, y in parts)
        return HeldOut(validation, test)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that runs share."""

    held_out: HeldOut
    x: Any
    y: Any
    evaluated_at: np.ndarray
    goal: Goal | None
    watched: tuple[Any, Any] | None = None

    @property
    def longest(self) -> int:
        """The most steps between two evaluations."""
        return int(np.diff(self.evaluated_at).max(initial=1))


def together(batching: str, runs_at_once: int | None) -> int:
    """How many runs train at once; 1 for one after the other."""
    checks.choice("compare", "batching", batching, ("auto", "sequential", "vmap"))
    if runs_at_once is not None:
        checks.integer("compare", "runs_at_once", runs_at_once, at_least=1)
    if batching == "sequential" or (batching == "auto" and jax.default_backend() == "cpu"):
        return 1
    return _TOGETHER if runs_at_once is None else runs_at_once


def train_one(
    compiled: Compiled,
    plan: Plan,
    out: Outcomes,
    run: Run,
    variables: tuple[Any, Any],
    rate: float,
    key: Any,
    order: np.ndarray,
    tick: Callable[[int], None],
) -> None:
    """Train one run to its end and write its figures into `out`."""
    lr = jnp.float32(rate)
    carry = compiled.start(*variables, lr)
    marks = plan.evaluated_at
    evaluate, validation = compiled.evaluate, plan.held_out.validation

    def watch(e: int) -> None:
        if plan.watched is not None and out.diverged_at[run] < 0:
            for name, values in compiled.observe(carry, lr, *plan.watched).items():
                out.signals[name][run][e] = np.asarray(values)

    _evaluated(out, run, 0, *map(float, evaluate(carry, *validation)))
    watch(0)
    for e, (begin, end) in enumerate(itertools.pairwise(marks), start=1):
        if _over(out, run, plan.goal, e - 1, int(begin)):
            break
        segment = _padded(order[begin:end], plan.longest)
        carry, losses = compiled.advance(carry, lr, key, plan.x, plan.y, segment, int(end - begin))
        figures = evaluate(carry, *validation)
        _trained(out, run, int(begin), np.asarray(losses)[: end - begin])
        _evaluated(out, run, e, *map(float, figures))
        watch(e)
        tick(int(end - begin))
    _over(out, run, plan.goal, len(marks) - 1, int(marks[-1]))
    _tested(out, run, *map(float, evaluate(carry, *plan.held_out.test)))


def train_many(
    compiled: Compiled,
    plan: Plan,
    out: Outcomes,
    runs: list[Run],
    variables: list[tuple[Any, Any]],
    rates: list[float],
    keys: Any,
    orders: np.ndarray,
    tick: Callable[[int], None],
) -> None:
    """Train several runs at once; runs that have reached their goal hold still."""
    place = _placement(len(runs))
    lr = place(jnp.asarray(rates, jnp.float32))
    keys = place(keys)
    stacked = jax.tree.map(lambda *leaves: place(jnp.stack(leaves)), *variables)
    carry = compiled.start_many(*stacked, lr)
    marks = plan.evaluated_at
    evaluate, validation = compiled.evaluate_many, plan.held_out.validation

    def evaluated(e: int) -> None:
        for run, loss, accuracy in zip(runs, *map(np.asarray, evaluate(carry, *validation)), strict=True):
            if not _ended(out, run):
                _evaluated(out, run, e, float(loss), float(accuracy))
        if plan.watched is not None:
            for name, rows in compiled.observe_many(carry, lr, *plan.watched).items():
                for run, row in zip(runs, np.asarray(rows), strict=True):
                    if not _ended(out, run):
                        out.signals[name][run][e] = row

    evaluated(0)
    for e, (begin, end) in enumerate(itertools.pairwise(marks), start=1):
        for run in runs:
            _over(out, run, plan.goal, e - 1, int(begin))
        moving = np.asarray([not _ended(out, run) for run in runs])
        if not moving.any():
            break
        segment = np.stack([_padded(order[begin:end], plan.longest) for order in orders])
        count = np.where(moving, end - begin, 0).astype(np.int32)
        carry, losses = compiled.advance_many(carry, lr, keys, plan.x, plan.y, place(segment), place(count))
        for run, row in zip(runs, np.asarray(losses), strict=True):
            if not _ended(out, run):
                _trained(out, run, int(begin), row[: end - begin])
        evaluated(e)
        tick(int(end - begin) * len(runs))
    for run in runs:
        _over(out, run, plan.goal, len(marks) - 1, int(marks[-1]))
    for run, loss, accuracy in zip(runs, *map(np.asarray, evaluate(carry, *plan.held_out.test)), strict=True):
        _tested(out, run, float(loss), float(accuracy))


def _padded(segment: np.ndarray, longest: int) -> np.ndarray:
    missing = longest - len(segment)
    return np.pad(segment, ((0, missing), (0, 0))) if missing else segment


def _ended(out: Outcomes, run: Run) -> bool:
    return bool(out.diverged_at[run] >= 0 or out.stopped_at[run] >= 0)


def _trained(out: Outcomes, run: Run, begin: int, losses: np.ndarray) -> None:
    """Losses of the steps from `begin` on, up to the first that is not finite."""
    broken = np.flatnonzero(~np.isfinite(losses))
    if broken.size:
        out.diverged_at[run] = begin + broken[0]
        losses = losses[: broken[0]]
    out.train_loss[run][begin : begin + len(losses)] = losses


def _evaluated(out: Outcomes, run: Run, e: int, loss: float, accuracy: float) -> None:
    if out.diverged_at[run] < 0 and np.isfinite(loss):
        out.validation_loss[run][e] = loss
        out.validation_accuracy[run][e] = accuracy


def _over(out: Outcomes, run: Run, goal: Goal | None, e: int, taken: int) -> bool:
    """Whether a run has ended at evaluation `e`, after `taken` steps: diverged, or at its goal."""
    if _ended(out, run):
        return True
    loss, accuracy = out.validation_loss[run][e], out.validation_accuracy[run][e]
    if np.isnan(loss):
        out.diverged_at[run] = taken
    elif goal is not None and goal.reached(loss, accuracy) and e < out.validation_loss.shape[-1] - 1:
        out.stopped_at[run] = taken
    return _ended(out, run)


def _tested(out: Outcomes, run: Run, loss: float, accuracy: float) -> None:
    if out.diverged_at[run] < 0 and np.isfinite(loss):
        out.test_loss[run], out.test_accuracy[run] = loss, accuracy


def _placement(count: int) -> Callable[[Any], Any]:
    """Lay the leading axis over all local devices where they divide it."""
    devices = jax.local_devices()
    if len(devices) == 1 or count % len(devices):
        return jnp.asarray
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("run",), axis_types=auto)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("run"))
    return lambda leaf: jax.device_put(leaf, sharding)
