"""How the runs of a study are put on the machine: one after the other, or many at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.compare._outcomes import Outcomes, Run, Store
from jaxinit.compare._signals import observe
from jaxinit.compare._task import Task
from jaxinit.compare._training import Carry, Programs, batches
from jaxinit.models import Model

#: Runs that train together on an accelerator, unless said otherwise.
_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class Goal:
    """Where a run may stop: a validation loss this low, or an accuracy this high."""

    loss: float = -np.inf
    accuracy: float = np.inf

    @property
    def levels(self) -> tuple[np.float32, np.float32]:
        """As the programs take them."""
        return np.float32(self.loss), np.float32(self.accuracy)

    def reached(self, loss: np.float32, accuracy: np.float32) -> bool:
        return bool(loss <= self.levels[0] or accuracy >= self.levels[1])


class Compiled:
    """The programs of one (model, optimizer, task), compiled on first use and counted.

    They take and return a leading axis of runs. `together`: under vmap, any number of runs; else one run, its axis
    taken off and put back inside.
    """

    def __init__(self, programs: Programs, together: bool = False) -> None:
        self.programs, self.together = programs, together
        self.traces = 0
        see = functools.partial(observe, programs)
        self.start = self._compiled(programs.start, (0, 0, 0))
        self.segment = self._compiled(programs.segment, (0, 0, 0, None, None, 0, None, None, None))
        self.observe = self._compiled(see, (0, 0, None, None))

    def _compiled(self, function: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
        spread = jax.vmap(function, in_axes) if self.together else _alone(function, in_axes)

        def traced(*args: Any) -> Any:
            self.traces += 1
            return spread(*args)

        return jax.jit(traced)


def _alone(function: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """What `vmap` is for one run, without its batched products."""

    def one(*args: Any) -> Any:
        taken = (
            a if axis is None else jax.tree.map(lambda leaf: leaf[0], a)
            for a, axis in zip(args, in_axes, strict=True)
        )  # fmt: skip
        return jax.tree.map(lambda leaf: leaf[None], function(*taken))

    return one


@functools.lru_cache(maxsize=32)
def _remembered(model: Model, optimizer: Callable[[Any], Any], task: Task, together: bool) -> Compiled:
    return Compiled(Programs(model, optimizer, task), together)


def compiled(model: Model, optimizer: Callable[[Any], Any], task: Task, together: bool) -> Compiled:
    """The programs of a model, optimizer and task, kept for the next study with the same."""
    try:
        return _remembered(model, optimizer, task, together)
    except TypeError:  # an optimizer that cannot be hashed
        return Compiled(Programs(model, optimizer, task), together)


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
    goal: Goal
    watched: tuple[Any, Any] | None = None

    @property
    def longest(self) -> int:
        """The most steps between two evaluations."""
        return int(np.diff(self.evaluated_at).max(initial=1))


def together(batching: str, runs_at_once: int | None) -> int:
    """How many runs train at once; 0 for one after the other.

    On CPU runs go one after the other: a `vmap` over weights turns matrix products into slow batched ones. On
    accelerators runs train together, over all devices.
    """
    checks.choice("compare", "batching", batching, ("auto", "sequential", "vmap"))
    if runs_at_once is not None:
        checks.integer("compare", "runs_at_once", runs_at_once, at_least=1)
    if batching == "sequential" or (batching == "auto" and jax.default_backend() == "cpu"):
        return 0
    return _TOGETHER if runs_at_once is None else runs_at_once


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that train at once: where they are in the study, and what they start from, one entry a run."""

    runs: list[Run]
    variables: list[tuple[Any, Any]]
    rates: list[float]
    keys: list[Any]
    orders: list[np.ndarray]

    def filled(self, size: int) -> Group:
        """With copies of the last run up to `size`, so that groups of all sizes share one program."""
        missing = size - len(self.runs)
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "runs"}
        return Group(self.runs, **{name: part + [part[-1]] * missing for name, part in parts.items()})


def train(
    compiled: Compiled, plan: Plan, store: Store, group: Group, size: int, tick: Callable[[int], None]
) -> None:
    """Train a group of runs to their end, and write their figures into the store.

    The next segment is under way while the figures of the last are read. Runs that have ended hold still.
    """
    out, marks, group = store.outcomes, plan.evaluated_at, group.filled(size)
    place = _placement(size) if compiled.together else jnp.asarray
    rates, keys = place(np.asarray(group.rates, np.float32)), place(jnp.stack(group.keys))
    stacked = jax.tree.map(lambda *leaves: place(jnp.stack(leaves)), *group.variables)
    carry = compiled.start(*stacked, rates)
    first, carry = store.taken_up(group.runs, carry)
    if first > 0:
        tick(int(marks[first - 1]) * len(group.runs))

    def step(carry: Carry, begin: int, end: int, held_out: Any) -> Any:
        order = place(np.stack([_padded(o[begin:end], plan.longest) for o in group.orders]))
        count = np.int32(end - begin)
        return compiled.segment(carry, rates, keys, plan.x, plan.y, order, count, held_out, plan.goal.levels)

    def onward(carry: Carry, e: int) -> tuple[Any, ...]:
        results = step(carry, int(marks[max(e - 1, 0)]), int(marks[e]), plan.held_out.validation)
        seen = {} if plan.watched is None else compiled.observe(results[0], rates, *plan.watched)
        return (*results, seen)

    ahead = onward(carry, first) if first < len(marks) else ()
    for e in range(first, len(marks)):
        carry, losses, loss, accuracy, seen = ahead
        ahead = onward(carry, e + 1) if e + 1 < len(marks) else ()
        _read(out, plan, group.runs, e, np.asarray(losses), np.asarray(loss), np.asarray(accuracy), seen)
        store.reached(group.runs, e, carry)
        if e > 0:
            tick(int(marks[e] - marks[e - 1]) * len(group.runs))
        if all(_ended(out, run) for run in group.runs):
            break
    _, _, *figures = step(carry, 0, 0, plan.held_out.test)
    for run, loss, accuracy in zip(group.runs, *map(np.asarray, figures), strict=False):
        if out.diverged_at[run] < 0 and np.isfinite(loss):
            out.test_loss[run], out.test_accuracy[run] = loss, accuracy


def _read(
    out: Outcomes, plan: Plan, runs: list[Run], e: int, losses: Any, loss: Any, accuracy: Any, seen: Any
) -> None:
    """Figures of the segment before evaluation `e`, and of the evaluation, into the outcomes."""
    end, begin = int(plan.evaluated_at[e]), int(plan.evaluated_at[max(e - 1, 0)])
    last = e + 1 == len(plan.evaluated_at)
    columns = {name: np.asarray(values) for name, values in seen.items()}
    for n, run in enumerate(runs):
        if _ended(out, run):
            continue
        taken = losses[n, : end - begin]
        broken = np.flatnonzero(~np.isfinite(taken))
        if broken.size:
            out.diverged_at[run] = begin + broken[0]
            out.train_loss[run][begin : begin + broken[0]] = taken[: broken[0]]
            continue
        out.train_loss[run][begin:end] = taken
        if not np.isfinite(loss[n]):
            out.diverged_at[run] = end
            continue
        out.validation_loss[run][e], out.validation_accuracy[run][e] = loss[n], accuracy[n]
        for name, values in columns.items():
            out.signals[name][run][e] = values[n]
        if plan.goal.reached(loss[n], accuracy[n]) and not last:
            out.stopped_at[run] = end


def _padded(segment: np.ndarray, longest: int) -> np.ndarray:
    missing = longest - len(segment)
    return np.pad(segment, ((0, missing), (0, 0))) if missing else segment


def _ended(out: Outcomes, run: Run) -> bool:
    return bool(out.diverged_at[run] >= 0 or out.stopped_at[run] >= 0)


def width(at_once: int, runs: int) -> int:
    """Runs of a group with what fills it up: all devices alike."""
    devices = len(jax.local_devices())
    return max(1, -(-min(at_once, runs) // devices) * devices) if at_once else 1


def _placement(count: int) -> Callable[[Any], Any]:
    """Lay the leading axis over all local devices."""
    devices = jax.local_devices()
    if len(devices) == 1 or count % len(devices):
        return jnp.asarray
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("run",), axis_types=auto)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("run"))
    return lambda leaf: jax.device_put(leaf, sharding)
