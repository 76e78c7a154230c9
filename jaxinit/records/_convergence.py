"""Convergence: what the initializer does to training, run by run, and the statistics that hold."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit._core import checks
from jaxinit.records._codec import saved
from jaxinit.records._record import Record
from jaxinit.records._resampling import Estimate, interval, median_estimate, resamples, superiority

if TYPE_CHECKING:
    from rich.table import Table

_METRICS = ("train_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
_CURVES = _METRICS[:3]


@dataclasses.dataclass(frozen=True)
class Crossing:
    """When the runs of one initializer reach a threshold.

    `steps` holds one entry a seed, infinite where the run never got there (censored or diverged); `median` is
    infinite when half of the runs or more never did.
    """

    threshold: float
    steps: np.ndarray
    median: Estimate

    @property
    def reached(self) -> int:
        """Number of runs that got there."""
        return int(np.isfinite(self.steps).sum())


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Convergence(Record):
    """Training runs over initializers x learning rates x seeds.

    Axes: I initializers (`initializers`, their labels), R learning rates, S seeds, T steps, E evaluations.
    Seeds are paired: seed s has the same order of data for every initializer and learning rate.

    Attributes:
        learning_rates, seeds, evaluated_at: `(R,)`, `(S,)` and `(E,)`; `evaluated_at` counts the steps taken
            before each evaluation, 0 first.
        train_loss: `(I, R, S, T)`, the loss of each step's batch before the step.
        validation_loss, validation_accuracy: `(I, R, S, E)`; accuracy is None where the task has none.
        test_loss, test_accuracy: `(I, R, S)`, after the last step of the run.
        diverged_at: `(I, R, S)`, the first step with a non-finite loss, -1 if there was none; figures from
            there on are nan.
        stopped_at: `(I, R, S)`, the number of steps after which a run was stopped because it had reached
            its goal, -1 if it was not; figures of later steps are nan.
        signals: statistics along training, name to `(I, R, S, E, site)`; `sites` names the last axis.
        config: what was run; `provenance`: on what.

    In statistics a diverged run counts, as the worst outcome there is: accuracy 0, loss infinite, threshold
    never reached. Figures "at best" are at the learning rate chosen for each initializer on validation data;
    their intervals resample the seeds and choose again, so that they carry the luck of the choice.
    """

    initializers: tuple[str, ...]
    learning_rates: np.ndarray
    seeds: np.ndarray
    evaluated_at: np.ndarray
    train_loss: np.ndarray
    validation_loss: np.ndarray
    validation_accuracy: np.ndarray | None
    test_loss: np.ndarray
    test_accuracy: np.ndarray | None
    diverged_at: np.ndarray
    stopped_at: np.ndarray
    signals: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sites: tuple[str, ...] = ()
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def steps(self) -> int:
        """T, the number of steps of each run."""
        return int(self.train_loss.shape[-1])

    @property
    def measure(self) -> str:
        """What decides: "accuracy", or "loss" where the task has no accuracy."""
        return "loss" if self.test_accuracy is None else "accuracy"

    @property
    def label(self) -> str:
        """What the record is of, for legends and tables."""
        named = [str(self.config[k]) for k in ("model", "data", "optimizer") if k in self.config]
        return str(self.config.get("label", ", ".join(named) or "training"))

    def __repr__(self) -> str:
        shape = f"{len(self.initializers)} initializers x {len(self.learning_rates)} learning rates"
        return f"Convergence({self.label!r}, {shape} x {len(self.seeds)} seeds, {self.steps} steps)"

    def __getitem__(self, metric: str) -> np.ndarray:
        """A metric's array by name; KeyError names those there are."""
        value = getattr(self, metric) if metric in _METRICS else self.signals.get(metric)
        if value is None:
            there = [m for m in _METRICS if getattr(self, m) is not None] + list(self.signals)
            raise KeyError(f"no metric {metric!r} was recorded. {checks.nearest(metric, there)}")
        return value

    # ---- outcomes of runs -------------------------------------------------------------------------------

    def diverged(self) -> np.ndarray:
        """Which runs met a non-finite loss: `(I, R, S)`."""
        return self.diverged_at >= 0

    def divergence_rate(self) -> np.ndarray:
        """Share of the seeds that diverged: `(I, R)`."""
        return self.diverged().mean(axis=-1)

    def final(self, metric: str) -> np.ndarray:
        """A metric at the end of each run, `(I, R, S)`: the last recorded value; the worst if it diverged."""
        values = self[metric].astype(np.float64)
        if values.ndim == 4:
            there = np.isfinite(values)
            last = values.shape[-1] - 1 - np.argmax(there[..., ::-1], axis=-1)
            values = np.take_along_axis(values, last[..., None], axis=-1)[..., 0]
            values = np.where(there.any(axis=-1), values, np.nan)
        return np.where(self.diverged() | np.isnan(values), _worst(metric), values)

    def crossing_steps(self, threshold: float, metric: str) -> np.ndarray:
        """Steps until a curve first reaches the threshold, `(I, R, S)`, infinite where it never does.

        The resolution is that of the curve: each step for `train_loss`, `evaluated_at` for the others.
        """
        if metric not in _CURVES:
            raise checks.bad("Convergence", "metric", "one of " + ", ".join(_CURVES), metric)
        curve, at = self[metric], self.evaluated_at
        if metric == "train_loss":
            at = np.arange(self.steps)
        with np.errstate(invalid="ignore"):
            there = curve >= threshold if metric.endswith("accuracy") else curve <= threshold
        first = at[np.argmax(there, axis=-1)].astype(np.float64)
        return np.where(there.any(axis=-1) & ~self.diverged(), first, np.inf)

    def areas(self, metric: str) -> np.ndarray:
        """Mean of a curve over the steps of the run (trapezoids), `(I, R, S)`: fast and good is better.

        After an early stop the curve stays where it was; after a divergence the accuracy is 0, the loss
        infinite.
        """
        if metric not in _CURVES[1:]:
            raise checks.bad("Convergence", "metric", "one of " + ", ".join(_CURVES[1:]), metric)
        curve = self[metric].astype(np.float64).copy()
        for e in range(1, curve.shape[-1]):
            gap = np.isnan(curve[..., e])
            held = np.where(self.diverged(), _worst(metric), curve[..., e - 1])
            curve[..., e] = np.where(gap, held, curve[..., e])
        curve = np.where(np.isnan(curve), _worst(metric), curve)
        if curve.shape[-1] == 1:
            return curve[..., 0]
        return np.asarray(np.trapezoid(curve, self.evaluated_at, axis=-1) / self.evaluated_at[-1])

    # ---- the choice of the learning rate ----------------------------------------------------------------

    def _choice(self, seeds: np.ndarray) -> np.ndarray:
        """Index of the best learning rate, `(draws, I)`, for each draw of seeds `(draws, S)`.

        Best: highest median validation accuracy, then lowest median validation loss, then the smallest rate.
        """
        loss = self.final("validation_loss")
        gain = self.final("validation_accuracy") if self.measure == "accuracy" else np.zeros_like(loss)
        chosen = np.empty((len(seeds), len(self.initializers)), dtype=np.int64)
        for i in range(len(self.initializers)):
            keys = [np.median(values[i][:, seeds], axis=-1).T for values in (loss, -gain)]
            rates = np.broadcast_to(self.learning_rates, keys[0].shape)
            chosen[:, i] = np.lexsort((rates, *keys), axis=-1)[:, 0]
        return chosen

    def best_rate(self) -> np.ndarray:
        """Index of each initializer's best learning rate on validation data: `(I,)`."""
        return self._choice(np.arange(len(self.seeds))[None])[0]

    def common_rate(self) -> int:
        """Index of the one learning rate that serves all initializers best.

        That with the greatest mean over initializers of the median validation score: the accuracy, or the
        share of the untrained loss that is gone, between 0 and 1. Initializers that never learn have no say.
        """
        if self.measure == "accuracy":
            score = self.final("validation_accuracy")
        else:
            start = self.config.get("baseline_loss") or float(np.nanmedian(self.validation_loss[..., 0]))
            score = np.clip(1.0 - self.final("validation_loss") / start, 0.0, 1.0)
        return int(np.argmax(np.median(score, axis=-1).mean(axis=0)))

    def rates(self, at: str | float = "best") -> np.ndarray:
        """Index of the learning rate to look at, `(I,)`: "best", "common", or a rate of the study."""
        if isinstance(at, str):
            checks.choice("Convergence", "at", at, ("best", "common"))
            return self.best_rate() if at == "best" else np.full(len(self.initializers), self.common_rate())
        near = np.flatnonzero(np.isclose(self.learning_rates, at, rtol=1e-5, atol=0.0))
        if near.size == 0:
            raise checks.bad("Convergence", "at", f"a rate of {self.learning_rates.tolist()}", at)
        return np.full(len(self.initializers), near[0])

    def at_edge(self) -> np.ndarray:
        """Whether the best rate is the smallest (-1) or the largest (+1) tried, else 0: `(I,)`."""
        best, last = self.best_rate(), len(self.learning_rates) - 1
        if last == 0:
            return np.zeros_like(best)
        return np.where(best == 0, -1, np.where(best == last, 1, 0))

    # ---- statistics over seeds --------------------------------------------------------------------------

    def runs(self, values: np.ndarray, at: str | float = "best") -> np.ndarray:
        """Of figures `(I, R, S, ...)`, those at the chosen learning rate: `(I, S, ...)`."""
        return values[np.arange(len(self.initializers)), self.rates(at)]

    def _replicates(self, values: np.ndarray, at: str | float, stream: int = 0) -> np.ndarray:
        """Bootstrap replicates of `runs(values, at)`, the choice of rate made again: `(draws, I, S)`."""
        draws = resamples(len(self.seeds), stream=stream)
        who = np.arange(len(self.initializers))
        if at == "best":
            chosen = self._choice(draws)
        else:
            chosen = np.broadcast_to(self.rates(at), (len(draws), len(who)))
        return values[who[None, :, None], chosen[:, :, None], draws[:, None, :]]

    def _estimates(self, values: np.ndarray, at: str | float) -> dict[str, Estimate]:
        runs, replicates = self.runs(values, at), self._replicates(values, at)
        return {name: median_estimate(runs[i], replicates[:, i]) for i, name in enumerate(self.initializers)}

    def summary(self, metric: str | None = None, at: str | float = "best") -> dict[str, Estimate]:
        """Per initializer, the median over seeds of a final metric, on test data unless named."""
        return self._estimates(self.final(metric or f"test_{self.measure}"), at)

    def area(self, metric: str | None = None, at: str | float = "best") -> dict[str, Estimate]:
        """Per initializer, the median over seeds of the area under a validation curve (see `areas`)."""
        return self._estimates(self.areas(metric or f"validation_{self.measure}"), at)

    def threshold(self) -> float:
        """The level asked for when none is given.

        Nine tenths of the way from the trivial answer (most frequent class, mean of the targets) to the
        best median validation figure of the study.
        """
        metric = f"validation_{self.measure}"
        median = np.median(self.final(metric), axis=-1)
        if self.measure == "accuracy":
            start, goal = float(self.config.get("chance", 0.0)), float(median.max())
        else:
            start = float(self.config.get("baseline_loss") or np.nanmedian(self.validation_loss[..., 0]))
            goal = float(median.min())
        return start + 0.9 * (goal - start) if np.isfinite(goal) else start

    def steps_to(
        self, threshold: float | None = None, metric: str | None = None, at: str | float = "best"
    ) -> dict[str, Crossing]:
        """Per initializer, when its runs reach a threshold; runs that never do are counted as such.

        Args:
            threshold: the level (default: `threshold()`).
            metric: "validation_accuracy", "validation_loss" or "train_loss" (default: on validation data).
            at: "best", "common" or a learning rate.
        """
        level = self.threshold() if threshold is None else float(threshold)
        steps = self.crossing_steps(level, metric or f"validation_{self.measure}")
        runs, estimates = self.runs(steps, at), self._estimates(steps, at)
        return {name: Crossing(level, runs[i], estimates[name]) for i, name in enumerate(self.initializers)}

    def probability_better(
        self, metric: str | None = None, at: str | float = "best"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P(a run of initializer i ends better than one of j), ties half: value, low, high, each `(I, I)`.

        Vargha & Delaney (2000), over all pairs of runs; the interval resamples the seeds of i and of j
        independently, as Agarwal et al. (2021).
        """
        name = metric or f"test_{self.measure}"
        values = self.final(name) * (1.0 if name.endswith("accuracy") else -1.0)
        runs = self.runs(values, at)
        value = superiority(runs[:, None], runs[None])
        left, right = self._replicates(values, at), self._replicates(values, at, stream=1)
        low, high = np.full_like(value, 0.5), np.full_like(value, 0.5)
        for i, j in itertools.combinations(range(len(runs)), 2):
            low[i, j], high[i, j] = interval(superiority(left[:, i], right[:, j]))
            low[j, i], high[j, i] = 1.0 - high[i, j], 1.0 - low[i, j]
        return value, low, high

    def verdicts(self) -> dict[str, str]:
        """One sentence or two on each initializer, which claim no more than the runs show."""
        from jaxinit.records._verdicts import convergence_verdicts

        return convergence_verdicts(self)

    def before_training(self) -> dict[str, dict[str, float]]:
        """Per initializer, what the signal does at step 0, medians over seeds; empty without `signals`.

        "signal": second moment of the last layer's output over that of the first. "gradient": root mean square of
        the first kernel's gradient over that of the last. "silent": share of silent units, mean over all layers but
        the last. nan where nothing arrives at all (0 / 0), or the outputs were out of sight.
        """
        if not self.signals or len(self.sites) < 2:
            return {}
        start = {name: values[:, 0, :, 0].astype(np.float64) for name, values in self.signals.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            figures = {
                "signal": start["second_moment"][..., -1] / start["second_moment"][..., 0],
                "gradient": start["grad_rms"][..., 0] / start["grad_rms"][..., -1],
                "silent": start["silent_fraction"][..., :-1].mean(axis=-1),
            }
        return {
            name: {figure: float(np.median(values[i])) for figure, values in figures.items()}
            for i, name in enumerate(self.initializers)
        }

    # ---- views ------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """One dict a run: initializer, learning rate, seed, final figures, divergence, early stop."""
        finals = {m: self.final(m) for m in _METRICS if getattr(self, m) is not None}
        out = []
        for i, r, s in np.ndindex(self.diverged_at.shape):
            out.append(
                {
                    "initializer": self.initializers[i],
                    "learning_rate": float(self.learning_rates[r]),
                    "seed": int(self.seeds[s]),
                    **{m: float(v[i, r, s]) for m, v in finals.items()},
                    "diverged_at": int(self.diverged_at[i, r, s]),
                    "stopped_at": int(self.stopped_at[i, r, s]),
                }
            )
        return out

    def table(self, threshold: float | None = None) -> Table:
        """One row an initializer: best rate, test figure there and at the common rate, steps to a level."""
        from jaxinit.records._convergence_table import convergence_table

        return convergence_table(self, threshold)


def _worst(metric: str) -> float:
    return 0.0 if metric.endswith("accuracy") else np.inf
