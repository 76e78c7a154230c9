"""What runs yield, kept as arrays over (arm, learning rate, seed), and on disk so that a study resumes."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit.records import Record, load, saved

Run = tuple[int, int, int]


@saved
@dataclasses.dataclass(eq=False)
class Outcomes(Record):
    """Figures of all runs; nan where there are none. `done` says which runs are complete.

    `fingerprint` describes the study: figures of one study never pass for those of another.
    """

    fingerprint: dict[str, Any]
    done: np.ndarray
    train_loss: np.ndarray
    validation_loss: np.ndarray
    validation_accuracy: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray
    diverged_at: np.ndarray
    stopped_at: np.ndarray
    signals: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @staticmethod
    def empty(
        fingerprint: dict[str, Any], runs: Run, steps: int, evaluations: int, signals: dict[str, int]
    ) -> Outcomes:
        def nans(*shape: int) -> np.ndarray:
            return np.full((*runs, *shape), np.nan, np.float32)

        return Outcomes(
            fingerprint=fingerprint,
            done=np.zeros(runs, bool),
            train_loss=nans(steps),
            validation_loss=nans(evaluations),
            validation_accuracy=nans(evaluations),
            test_loss=nans(),
            test_accuracy=nans(),
            diverged_at=np.full(runs, -1, np.int64),
            stopped_at=np.full(runs, -1, np.int64),
            signals={name: nans(evaluations, sites) for name, sites in signals.items()},
        )

    def reset(self, runs: list[Run]) -> None:
        """Forget what runs that were cut short had written."""
        for run in runs:
            self.diverged_at[run] = self.stopped_at[run] = -1
            figures = (self.train_loss, self.validation_loss, self.validation_accuracy, self.test_loss,
                       self.test_accuracy, *self.signals.values())  # fmt: skip
            for array in figures:
                array[run] = np.nan


class Store:
    """Outcomes that are written to a file now and then, if there is one."""

    #: Seconds between writes.
    every = 15.0

    def __init__(self, path: str | os.PathLike[str] | None, outcomes: Outcomes) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self.outcomes = outcomes
        self.written = time.monotonic()
        if self.path is not None and self.path.exists():
            self.outcomes = self._resumed(self.path)

    def _resumed(self, path: Path) -> Outcomes:
        found = load(path)
        if not isinstance(found, Outcomes):
            raise checks.bad(
                "compare", "resume", "the file of an unfinished study", str(path), "Name another file."
            )
        ours = self.outcomes.fingerprint
        other = [k for k in ours if found.fingerprint.get(k) != ours[k]]
        if other:
            was = ", ".join(f"{k} = {found.fingerprint.get(k)!r} there, {ours[k]!r} here" for k in other[:3])
            rule = f"the file of this very study, but it differs in {was}"
            raise checks.bad("compare", "resume", rule, str(path), "Name another file, or delete this one.")
        return found

    def finish(self, runs: list[Run]) -> None:
        """Mark runs as complete."""
        for run in runs:
            self.outcomes.done[run] = True
        if self.path is not None and time.monotonic() - self.written > self.every:
            self.write()

    def write(self) -> None:
        """Write the file now, if there is one."""
        if self.path is not None:
            self.outcomes.save(self.path)
            self.written = time.monotonic()
