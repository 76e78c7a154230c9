"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _common import depth_figure, finish, rows

import jaxinit as ji


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
    start = np.array([first_loss(record) for record in found.values()])
    before = dict(zip(found[max(found)].initializers, start.T, strict=True))
    title = "before training, median of the seeds"
    return finish(depth_figure(found, "residual blocks", before, "validation loss", title, "log"), target)
