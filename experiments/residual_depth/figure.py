"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _common import accuracy_curves, by_depth, by_rate, finish, rows

import jaxinit as ji
from jaxinit.plot import new_figure
from jaxinit.plot._style import look


def records(out: Path) -> dict[int, ji.Convergence]:
    """By number of blocks."""
    return {int(path.stem.split("_")[1]): ji.load(path) for path in sorted(out.glob("blocks_*.npz"))}


def first_loss(record: ji.Convergence) -> np.ndarray:
    """Validation loss before training, median over seeds, one an initializer; infinite if it is not finite."""
    start = record.validation_loss[:, 0, :, 0]
    return np.median(np.where(np.isfinite(start), start, np.inf), axis=-1)


def outcome(out: Path) -> list[dict[str, Any]]:
    """One row an initializer of each depth, with its loss before training."""
    return [
        {"blocks": depth, **row, "loss before training": float(start)}
        for depth, record in records(out).items()
        for row, start in zip(rows(record), first_loss(record), strict=True)
    ]


def main(out: Path, target: Path) -> Path:
    found = records(out)
    deepest = max(found)
    figure, axes = new_figure(2, 2, size=(10.6, 7.8))
    loss, accuracy, training, rates = np.ravel(axes)
    start = np.array([first_loss(record) for record in found.values()])
    for i, name in enumerate(found[deepest].initializers):
        style = look(i)
        loss.plot(list(found), start[:, i], color=style.colour, marker=style.marker, ms=5, label=name)
    loss.set_yscale("log")
    loss.set(xlabel="residual blocks", ylabel="validation loss", title="before training, median of the seeds")
    loss.legend(fontsize=8)
    by_depth(found, accuracy, "residual blocks")
    for ax in (loss, accuracy):
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(found), [str(depth) for depth in found])
    title = f"{deepest} blocks at their best rates, {len(found[deepest].seeds)} seeds: median and range"
    accuracy_curves(found[deepest], training, title)
    by_rate(found[deepest], rates, f"{deepest} blocks")
    return finish(figure, target)
