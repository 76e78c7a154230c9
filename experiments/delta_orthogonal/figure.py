"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from _common import depth_figure, finish, rows

import jaxinit as ji


def records(out: Path) -> dict[int, ji.Convergence]:
    """By number of layers."""
    return {int(path.stem.split("_")[1]): ji.load(path) for path in sorted(out.glob("layers_*.npz"))}


def outcome(out: Path) -> list[dict[str, Any]]:
    """One row an initializer of each depth, with what is left of the images behind the last layer."""
    before = json.loads((out / "before.json").read_text())
    return [
        {"layers": depth, **row, **before[str(depth)][row["initializer"]]}
        for depth, record in records(out).items()
        for row in rows(record)
    ]


def main(out: Path, target: Path) -> Path:
    found, start = records(out), json.loads((out / "before.json").read_text())
    names = found[max(found)].initializers
    before = {name: np.array([start[str(depth)][name]["rank"] for depth in found]) for name in names}
    title = "64 images behind the last layer, before training"
    figure = depth_figure(found, "layers", before, "effective rank", title, "linear")
    figure.axes[0].set_ylim(bottom=0.0)
    return finish(figure, target)
