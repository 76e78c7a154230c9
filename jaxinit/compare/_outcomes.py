"""What runs yield, kept as arrays over (arm, learning rate, seed), and on disk so that a study resumes."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinit._core import checks
from jaxinit.records import Record, load, saved

Run = tuple[int, int, int]


@saved
@dataclasses.dataclass(eq=False)
class Outcomes(Record):
    """Figures of all runs; nan where there are none. `done` says which runs are complete.

    `fingerprint` describes the study: figures of one study never pass for those of another. `under_way` holds the
    state of the runs that were being trained: which they are, their last evaluation, the bytes of their carry.
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
    under_way: dict[str, Any] = dataclasses.field(default_factory=dict)

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
    """Outcomes that are written to a file now and then, if there is one, with the runs that are under way."""

    #: Seconds between writes.
    every = 15.0

    def __init__(self, path: str | os.PathLike[str] | None, outcomes: Outcomes) -> None:
        self.path = None if path is None else checks.path("compare", "resume", path)
        self.outcomes = outcomes
        self.written = time.monotonic()
        self.state: tuple[list[Run], int, Any] | None = None
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

    def taken_up(self, runs: list[Run], start: Any) -> tuple[int, Any]:
        """The first evaluation that these runs have yet to reach, and the carry to go on from.

        Like `start`, the carry before the first step, which it is unless these very runs were under way.
        """
        kept = self.outcomes.under_way
        if kept and np.array_equal(kept["runs"], runs):
            carry = _from_bytes(kept["carry"], start)
            if carry is not None:
                return int(kept["evaluation"]) + 1, carry
        self.outcomes.reset(runs)
        return 0, start

    def reached(self, runs: list[Run], evaluation: int, carry: Any) -> None:
        """Runs under way have come to an evaluation, with this carry."""
        if self.path is not None:
            self.state = (runs, evaluation, carry)
            self._now_and_then()

    def finish(self, runs: list[Run]) -> None:
        """Mark runs as complete."""
        for run in runs:
            self.outcomes.done[run] = True
        self.state = None
        self._now_and_then()

    def _now_and_then(self) -> None:
        if time.monotonic() - self.written > self.every:
            self.write()

    def write(self) -> None:
        """Write the file now, if there is one."""
        if self.path is None:
            return
        if self.state is None:
            self.outcomes.under_way = {}
        else:
            runs, evaluation, carry = self.state
            self.outcomes.under_way = {
                "runs": np.asarray(runs), "evaluation": evaluation, "carry": _to_bytes(carry)
            }  # fmt: skip
        self.outcomes.save(self.path)
        self.written = time.monotonic()


def _is_key(leaf: Any) -> bool:
    return bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _to_bytes(carry: Any) -> np.ndarray:
    """The bits of all leaves, one after the other."""
    raw = (jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(carry))
    return np.frombuffer(b"".join(np.asarray(leaf).tobytes() for leaf in raw), np.uint8)


def _from_bytes(raw: np.ndarray, like: Any) -> Any:
    """The tree whose bits these are, laid out as `like` is; None if it takes another number of bytes."""
    leaves, structure = jax.tree.flatten(like)
    plain = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in leaves]
    if raw.size != sum(leaf.nbytes for leaf in plain):
        return None
    out, content, at = [], raw.tobytes(), 0
    for leaf, bits in zip(leaves, plain, strict=True):
        values = np.frombuffer(content, bits.dtype, bits.size, at).reshape(bits.shape)
        at += bits.nbytes
        array = jax.device_put(values, bits.sharding)
        out.append(
            jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array
        )
    return jax.tree.unflatten(structure, out)
