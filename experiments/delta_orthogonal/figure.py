"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from _common import accuracy_curves, by_depth, by_rate, finish, rows

import jaxinit as ji
from jaxinit.plot import new_figure
from jaxinit.plot._style import look


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
    found, before = records(out), json.loads((out / "before.json").read_text())
    deepest = max(found)
    figure, axes = new_figure(2, 2, size=(10.6, 7.8))
    left, accuracy, training, rates = np.ravel(axes)
    for i, name in enumerate(found[deepest].initializers):
        style = look(i)
        rank = [before[str(depth)][name]["rank"] for depth in found]
        left.plot(list(found), rank, color=style.colour, marker=style.marker, ms=5, label=name)
    left.set(ylim=(0.0, None))
    left.set(
        xlabel="layers", ylabel="effective rank", title="64 images behind the last layer, before training"
    )
    left.legend(fontsize=8)
    by_depth(found, accuracy, "layers")
    for ax in (left, accuracy):
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(found), [str(depth) for depth in found])
    title = f"{deepest} layers at their best rates, {len(found[deepest].seeds)} seeds: median and range"
    accuracy_curves(found[deepest], training, title)
    by_rate(found[deepest], rates, f"{deepest} layers")
    return finish(figure, target)
