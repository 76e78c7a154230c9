"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _common import accuracy_curves, by_rate, finish, rows

import jaxinit as ji
from jaxinit.plot import new_figure

NAMES = {"none": "no normalization", "pre": "norm before each branch", "post": "norm after each sum"}


def records(out: Path) -> dict[str, ji.Convergence]:
    """By the place of the norm."""
    return {norm: ji.load(out / f"norm_{norm}.npz") for norm in NAMES if (out / f"norm_{norm}.npz").is_file()}


def outcome(out: Path) -> list[dict[str, Any]]:
    """One row an initializer of each study, with its loss before training."""
    return [
        {"norm": norm, **row, "loss before training": float(np.median(record.validation_loss[i, 0, :, 0]))}
        for norm, record in records(out).items()
        for i, row in enumerate(rows(record))
    ]


def main(out: Path, target: Path) -> Path:
    found = records(out)
    figure, axes = new_figure(2, len(found), size=(4.9 * len(found), 7.8))
    for (above, below), (norm, record) in zip(np.reshape(axes, (2, -1)).T, found.items(), strict=True):
        accuracy_curves(record, above, f"{NAMES[norm]}, {len(record.seeds)} seeds: median and range")
        by_rate(record, below, NAMES[norm])
    return finish(figure, target)
