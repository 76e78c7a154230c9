"""How the runs of a study are put on the machine: one after the other, or many at once."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.compare._outcomes import Outcomes, Run, Store
from jaxinit.compare._signals import observe
from jaxinit.compare._task import Task
from jaxinit.compare._training import Figures, Programs, Work, batches
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


class Pace:
    """How far a program runs before the host looks: about half a second, so that looking costs next to nothing.

    Until it is known how long that is, one evaluation; the first call, which compiles, tells nothing.
    """

    seconds = 0.5

    def __init__(self) -> None:
        self.calls = 0
        self.each = math.inf

    def until(self, e: int, most: int) -> int:
        """The evaluation at which to look again, beginning at `e`."""
        return min(most, e + max(1, int(self.seconds / self.each)))

    def took(self, evaluations: int, seconds: float) -> None:
        self.calls += 1
        if self.calls > 1:
            self.each = max(seconds / evaluations, 1e-6)


class Compiled:
    """The programs of one (model, optimizer, task), compiled on first use and counted.

    They take and return a leading axis of runs. `together`: under vmap, any number of runs; else one run, its axis
    taken off and put back inside.
    """

    def __init__(self, programs: Programs, together: bool = False) -> None:
        self.programs, self.together = programs, together
        self.traces = 0
        self.start = self._compiled(programs.start, (0, 0, 0))
        stretch = functools.partial(programs.stretch, see=functools.partial(observe, programs))
        self.stretch = self._compiled(stretch, (0, 0, 0, 0, None, None, None, None))
        self.pace = Pace()

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
    work: Work
    evaluated_at: np.ndarray
    goal: Goal


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
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Group(**{name: part + [part[-1]] * missing for name, part in parts.items()})


def train(
    compiled: Compiled, plan: Plan, store: Store, group: Group, size: int, tick: Callable[[int], None]
) -> None:
    """Train a group of runs to their end, and write their figures into the store. Runs that have ended hold still."""
    out, marks, runs = store.outcomes, plan.evaluated_at, group.runs
    group = group.filled(size)
    place = _placement(size) if compiled.together else jnp.asarray
    variables, keys = _stacked((group.variables, group.keys))
    given = [place(part) for part in (np.asarray(group.rates, np.float32), keys, np.stack(group.orders))]
    carry = compiled.start(*jax.tree.map(place, variables), given[0])
    first, carry = store.taken_up(runs, carry)
    if first > 0:
        tick(int(marks[first - 1]) * len(runs))
    while first < len(marks) and not all(_ended(out, run) for run in runs):
        last, began = compiled.pace.until(first, len(marks)), time.perf_counter()
        carry, figures = compiled.stretch(carry, *given, plan.work, first, last, plan.held_out.validation)
        figures = jax.tree.map(np.asarray, figures)
        compiled.pace.took(last - first, time.perf_counter() - began)
        for e in range(first, last):
            _read(out, plan, runs, e, figures)
        store.reached(runs, last - 1, carry)
        tick(int(marks[last - 1] - marks[max(first - 1, 0)]) * len(runs))
        first = last
    # at evaluation 0 no step is taken, whatever the carry
    still = carry._replace(moving=jnp.ones_like(carry.moving))
    _, figures = compiled.stretch(still, *given, plan.work, 0, 1, plan.held_out.test)
    tests = np.asarray(figures.loss)[:, 0], np.asarray(figures.accuracy)[:, 0]
    for run, loss, accuracy in zip(runs, *tests, strict=False):
        if out.diverged_at[run] < 0 and np.isfinite(loss):
            out.test_loss[run], out.test_accuracy[run] = loss, accuracy


@jax.jit
def _stacked(lists: Any) -> Any:
    """Of lists of trees, the trees with a leading axis for the list."""
    return tuple(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) for trees in lists)


def _read(out: Outcomes, plan: Plan, runs: list[Run], e: int, figures: Figures) -> None:
    """Figures of the steps before evaluation `e`, and of the evaluation, into the outcomes."""
    end, begin = int(plan.evaluated_at[e]), int(plan.evaluated_at[max(e - 1, 0)])
    last = e + 1 == len(plan.evaluated_at)
    for n, run in enumerate(runs):
        if _ended(out, run):
            continue
        taken, loss, accuracy = figures.losses[n, begin:end], figures.loss[n, e], figures.accuracy[n, e]
        broken = np.flatnonzero(~np.isfinite(taken))
        if broken.size:
            out.diverged_at[run] = begin + broken[0]
            out.train_loss[run][begin : begin + broken[0]] = taken[: broken[0]]
            continue
        out.train_loss[run][begin:end] = taken
        if not np.isfinite(loss):
            out.diverged_at[run] = end
            continue
        out.validation_loss[run][e], out.validation_accuracy[run][e] = loss, accuracy
        for name, values in figures.signals.items():
            out.signals[name][run][e] = values[n, e]
        if plan.goal.reached(loss, accuracy) and not last:
            out.stopped_at[run] = end


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
