"""`compare`: train every initializer at every learning rate from every seed, and keep what happened."""

from __future__ import annotations

import functools
import os
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.compare import _progress
from jaxinit.compare._arms import Arm, arms_of, label_of, rates_of
from jaxinit.compare._data import Dataset, load_data
from jaxinit.compare._execute import Compiled, Goal, Group, HeldOut, Plan, compiled, together, train, width
from jaxinit.compare._optimizers import FixedRate, takes_traced_rate
from jaxinit.compare._outcomes import Outcomes, Run, Store
from jaxinit.compare._signals import SIGNALS, sites_of
from jaxinit.compare._task import Task, task
from jaxinit.compare._training import Work, epochs
from jaxinit.ensemble import keys_of
from jaxinit.models import Model, adapt
from jaxinit.records import Convergence, provenance

#: What the parts of a run's key are for: seed s is fold_in(key(root), s), and this is folded into it.
_DRAW, _ORDER, _NOISE = 0, 1, 2
#: Validation examples on which signals are taken.
_WATCHED = 128


def compare(
    model: Any,
    initializers: Any,
    data: Any = "digits",
    optimizer: Any = "momentum",
    *,
    seeds: Any = 5,
    learning_rates: Any = (0.003, 0.01, 0.03, 0.1),
    steps: int = 1000,
    batch_size: int = 64,
    evaluate_every: int | None = None,
    loss: Any = None,
    stop_at: dict[str, float] | None = None,
    signals: bool = False,
    root: int = 0,
    batching: str = "auto",
    runs_at_once: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[int, int], object] = False,
    label: str | None = None,
) -> Convergence:
    """Train every initializer at every learning rate from every seed, on one compiled program.

    Seeds are paired: seed s gives the same order of data and the same dropout noise to every initializer
    and learning rate. Learning rates are data of the program, not constants. A run that meets a non-finite
    loss is recorded as diverged and counts, as the worst outcome; it does not end the study.

    Args:
        model: a linen module, class or factory, or an nnx factory `rngs -> module`; see
            `jaxinit.models.adapt` for how an initializer reaches its kernels.
        initializers: names ("he"), initializers, or a dict of label to either. None (or "default") stands for
            the model's own initializers.
        data: "digits", "mnist1d", `(x, y)` arrays, an iterable of batches or a factory of one, the path of an
            .npz or a folder, or a `Dataset`; see `load_data`, which has the options. Nothing is ever downloaded.
        optimizer: "sgd", "momentum", "nesterov", "adam", "adamw", "none" (no step: the drawn network as a
            baseline), or a factory `learning_rate -> optax.GradientTransformation` (with any schedule or clipping
            in it); or a dict of such by name, each of which is combined with every initializer.
        seeds: a count n (seeds 0 .. n-1) or distinct integers; seed s is fold_in(key(root), s).
        learning_rates: tried for each initializer; the best is chosen on validation data.
        steps: of each run, each on `batch_size` examples; epochs are permutations of the training part.
        evaluate_every: steps between evaluations on validation data (default: 20 evaluations a run).
        loss: "cross_entropy", "mse", or `(outputs, targets) -> (batch,)` losses (default: by the targets).
        stop_at: such as {"validation_accuracy": 0.9}: a run ends at the first evaluation that reaches it.
        signals: record, at each evaluation and for each kernel, the second moment of its layer's output, the
            share of silent units, the gradient, the weights and the next update relative to them, on 128
            validation examples: `record.signals[name]` is `(I, R, S, E, site)`.
        root: of all keys.
        batching: "sequential", "vmap", or "auto": one run after the other on CPU, where a vmap over weights
            is slower, and many at once on accelerators.
        runs_at_once: how many, under vmap.
        resume: a file in which finished runs are kept, and the state of those under way, every 15 seconds; the
            same study continues from it, with the same bits.
        progress: True for a bar on stderr if it is a terminal, or a function of (steps done, steps in all).
        label: of the record, for titles.

    Raises:
        ValueError, TypeError: an argument does not fit; before anything is compiled.
        DataNotAvailable: the data are not on this machine.

    Example:
        >>> from jaxinit.compare import compare
        >>> from jaxinit.models import MLP
        >>> record = compare(MLP(depth=4, width=16, features=10), ["he", "zeros"], "digits", "adam",
        ...                  seeds=2, learning_rates=[0.01], steps=60)
        >>> record.test_accuracy.shape
        (2, 1, 2)
        >>> bool(record.test_accuracy[0].min() > 0.5 > record.test_accuracy[1].max())
        True
    """
    arms = arms_of(initializers, optimizer)
    rates = rates_of(learning_rates)
    numbers = checks.seeds("compare", "seeds", seeds)
    batch_size = checks.integer("compare", "batch_size", batch_size, at_least=1, at_most=checks.MOST)
    steps = checks.integer(
        "compare", "steps", steps, at_least=1, at_most=checks.MOST // batch_size,
        way_out="A run has at most 2^31 examples: steps times batch_size.",
    )  # fmt: skip
    root = checks.integer("compare", "root", root, at_least=0, at_most=2**32 - 1)
    signals = checks.flag("compare", "signals", signals)
    if label is not None and not isinstance(label, str):
        raise checks.wrong_type("compare", "label", "a string or None", label)
    every = max(1, steps // 20) if evaluate_every is None else evaluate_every
    every = checks.integer("compare", "evaluate_every", every, at_least=1)
    at_once = together(batching, runs_at_once)
    _progress.check(progress)
    dataset = load_data(data)
    work = task(loss, dataset.classification)
    goal = _goal(stop_at, work)
    if batch_size > len(dataset.x_train):
        rule = f"at most the {len(dataset.x_train)} examples of the training part"
        raise checks.bad("compare", "batch_size", rule, batch_size)
    adapted = adapt(model, where="compare")
    params = _check_shapes(adapted, arms, dataset, work)
    sites = sites_of(params) if signals else ()

    marks = np.unique(np.append(np.arange(0, steps, every), steps))
    few = slice(0, _WATCHED)
    watched = (
        (jnp.asarray(dataset.x_validation[few]), jnp.asarray(dataset.y_validation[few])) if signals else None
    )
    keys = keys_of(numbers, root)
    orders = [
        epochs(jax.random.fold_in(key, _ORDER), len(dataset.x_train), batch_size, steps) for key in keys
    ]
    x, y = jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)
    shared = Work(x, y, jnp.asarray(marks, jnp.int32), goal.levels, watched)
    plan = Plan(HeldOut.of(dataset), shared, marks, goal)
    config: dict[str, Any] = {
        "model": adapted.name,
        "initializers": {arm.label: label_of(arm.initializer) for arm in arms},
        "optimizer": ", ".join(dict.fromkeys(arm.optimizer_name for arm in arms)),
        "data": dataset.name,
        "loss": work.name,
        "steps": steps,
        "batch_size": batch_size,
        "root": root,
        "signals": signals,
        "train_size": len(dataset.x_train),
        "validation_size": len(dataset.x_validation),
        "test_size": len(dataset.x_test),
        **({} if stop_at is None else {"stop_at": dict(stop_at)}),
        **(dataset.baseline() if work.name in ("cross_entropy", "mse") else {}),
        **({} if label is None else {"label": label}),
    }
    study = _Study(adapted, arms, rates, numbers, plan, dataset, work, keys, orders, sites)
    began = time.monotonic()
    store = Store(resume, study.outcomes(config, identify=resume is not None))
    try:
        with _progress.reporter(progress) as report:
            study.run(store, at_once, report)
    finally:
        store.write()
    out = store.outcomes
    config |= {"programs": study.programs, "seconds": round(time.monotonic() - began, 3)}
    return Convergence(
        initializers=tuple(arm.label for arm in arms),
        learning_rates=rates,
        seeds=numbers,
        evaluated_at=marks,
        train_loss=out.train_loss,
        validation_loss=out.validation_loss,
        validation_accuracy=out.validation_accuracy if work.classification else None,
        test_loss=out.test_loss,
        test_accuracy=out.test_accuracy if work.classification else None,
        diverged_at=out.diverged_at,
        stopped_at=out.stopped_at,
        signals=out.signals,
        sites=sites,
        config=config,
        provenance=provenance(),
    )


class _Study:
    """The runs of one study, and what they share."""

    def __init__(
        self, model: Model, arms: tuple[Arm, ...], rates: np.ndarray, seeds: np.ndarray, plan: Plan,
        data: Dataset, work: Task, keys: Any, orders: list[np.ndarray], sites: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.model, self.arms, self.rates, self.seeds = model, arms, rates, seeds
        self.plan, self.data, self.work, self.keys, self.orders = plan, data, work, keys, orders
        self.programs = 0
        self.signals = {} if plan.work.watched is None else dict.fromkeys(SIGNALS, len(sites))
        self.drawn: dict[tuple[int, int], Any] = {}

    def outcomes(self, config: dict[str, Any], identify: bool) -> Outcomes:
        """Empty outcomes; with the fingerprint by which an unfinished study is known again, if asked."""
        runs = (len(self.arms), len(self.rates), len(self.seeds))
        marks = self.plan.evaluated_at
        if not identify:
            return Outcomes.empty({}, runs, int(marks[-1]), len(marks), self.signals)
        seen = (
            "initializers",
            "optimizer",
            "signals",
            "data",
            "loss",
            "steps",
            "batch_size",
            "root",
            "stop_at",
        )
        fingerprint = {k: config.get(k) for k in seen} | {
            "learning_rates": self.rates.tolist(),
            "seeds": self.seeds.tolist(),
            "evaluated_at": self.plan.evaluated_at.tolist(),
            "data_checksum": _checksum(
                self.data.x_train, self.data.y_train, self.data.x_test, self.data.y_test
            ),
            "model_checksum": _checksum(*jax.tree.leaves(self.draw(self.arms[0].initializer, 0)[0])),
        }
        return Outcomes.empty(fingerprint, runs, int(marks[-1]), len(marks), self.signals)

    def draw(self, initializer: Any, s: int) -> tuple[Any, Any]:
        """Parameters and state of seed number s, drawn outside the training program."""
        key = jax.random.fold_in(self.keys[s], _DRAW)
        return self.model.init(initializer, key, jnp.asarray(self.data.x_train[:1]))

    def run(self, store: Store, at_once: int, report: Callable[[int, int], object]) -> None:
        """Train every run that is not done yet."""
        steps = int(self.plan.evaluated_at[-1])
        total = store.outcomes.done.size * steps
        finished = seen = int(store.outcomes.done.sum()) * steps
        report(finished, total)

        def tick(taken: int) -> None:
            nonlocal seen
            seen += taken
            report(min(seen, total), total)

        for programs, runs in self.groups(store.outcomes.done, at_once > 0):
            before, size = programs.traces, width(at_once, len(runs))
            for members in _grouped(runs, size):
                train(programs, self.plan, store, self.group(members), size, tick)
                store.finish(members)
                finished += len(members) * steps
                seen = finished
                report(finished, total)
            self.programs += programs.traces - before

    def group(self, runs: list[Run]) -> Group:
        """What runs that train at once start from."""
        needed = dict.fromkeys((i, s) for i, _, s in runs)
        if needed.keys() != self.drawn.keys():  # the rates of one draw follow each other
            self.drawn = {(i, s): self.draw(self.arms[i].initializer, s) for i, s in needed}
        return Group(
            runs,
            [self.drawn[i, s] for i, _, s in runs],
            [float(self.rates[r]) for _, r, _ in runs],
            [jax.random.fold_in(self.keys[s], _NOISE) for *_, s in runs],
            [self.orders[s] for *_, s in runs],
        )

    def groups(self, done: np.ndarray, together: bool) -> list[tuple[Compiled, list[Run]]]:
        """Runs still to do, by the program that serves them."""
        out: list[tuple[Compiled, list[Run]]] = []
        for name, factory in {arm.optimizer_name: arm.optimizer for arm in self.arms}.items():
            who = [i for i, arm in enumerate(self.arms) if arm.optimizer_name == name]
            runs = [(i, r, s) for i in who for s in range(len(self.seeds)) for r in range(len(self.rates))]
            runs = [run for run in runs if not done[run]]
            if takes_traced_rate(factory):
                out.append((compiled(self.model, factory, self.work, together), runs))
                continue
            for r, rate in enumerate(self.rates):
                fixed = compiled(self.model, FixedRate(factory, float(rate)), self.work, together)
                out.append((fixed, [run for run in runs if run[1] == r]))
        return out


def _grouped(runs: list[Run], size: int) -> list[list[Run]]:
    return [runs[i : i + size] for i in range(0, len(runs), size)]


def _checksum(*arrays: Any) -> int:
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(np.asarray(array)).tobytes(), total)
    return total


def _goal(stop_at: Any, work: Task) -> Goal:
    if stop_at is None:
        return Goal()
    known = ("validation_loss", "validation_accuracy") if work.classification else ("validation_loss",)
    if not isinstance(stop_at, dict) or len(stop_at) != 1:
        rule = "a dict of one metric to its level, such as {'validation_accuracy': 0.9}"
        raise checks.wrong_type("compare", "stop_at", rule, stop_at)
    ((metric, level),) = stop_at.items()
    checks.choice("compare", "stop_at", metric, known)
    return Goal(**{metric.removeprefix("validation_"): float(checks.number("compare", "stop_at", level))})


def _shapes(model: Model, initializer: Any, x: jax.ShapeDtypeStruct) -> Any:
    """Shapes of parameters and state, by tracing the draw."""
    try:
        return _remembered_shapes(model, initializer, x)
    except TypeError:  # an initializer that cannot be hashed, or one that is no initializer: trace and see
        return _remembered_shapes.__wrapped__(model, initializer, x)


@functools.lru_cache(maxsize=32)
def _output(model: Model, leaves: tuple[Any, ...], structure: Any, x: jax.ShapeDtypeStruct) -> Any:
    """The shape of the outputs for parameters and state of these shapes, by tracing."""
    variables = jax.tree.unflatten(structure, leaves)
    return jax.eval_shape(lambda v, i: model.apply(v[0], v[1], i, False, None)[0], variables, x)


@functools.lru_cache(maxsize=256)
def _remembered_shapes(model: Model, initializer: Any, x: jax.ShapeDtypeStruct) -> Any:
    key = jax.random.key(0, impl="threefry2x32")
    return jax.eval_shape(lambda k, inputs: model.init(initializer, k, inputs), key, x)


def _check_shapes(model: Model, arms: tuple[Arm, ...], data: Dataset, work: Task) -> Any:
    """Trace every initializer once, and return the shapes of the parameters.

    They must be alike for all, and the outputs fit the targets.
    """
    x = jax.ShapeDtypeStruct((2, *data.x_train.shape[1:]), jnp.float32)
    drawn = {arm.label: _shapes(model, arm.initializer, x) for arm in arms}
    first = arms[0].label
    for name, variables in drawn.items():
        if variables != drawn[first]:
            rule = f"initializers of one model, but {name!r} and {first!r} give other parameters"
            raise checks.bad("compare", "initializers", rule, name, "Compare models by separate studies.")
    leaves, structure = jax.tree.flatten(drawn[first])
    outputs = _output(model, tuple(leaves), structure, x)
    if work.name in ("cross_entropy", "mse") and outputs.shape != (2, data.outputs):
        rule = f"one that returns {data.outputs} outputs an example for data {data.name!r}"
        got = f"outputs of shape {outputs.shape} for 2 examples"
        raise checks.bad("compare", "model", rule, got, f"Set the width of its last layer to {data.outputs}.")
    return drawn[first][0]
