"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _common import accuracy_curves, by_rate, finish, rows

import jaxinit as ji
from jaxinit.plot import new_figure
from jaxinit.plot._style import look

#: Slope for negative inputs, by the name of the record.
NAMES = ("leaky_relu_0.01", "leaky_relu_0.25", "leaky_relu_0.5", "prelu_0.25")


def records(out: Path) -> dict[str, ji.Convergence]:
    return {name: ji.load(out / f"{name}.npz") for name in NAMES if (out / f"{name}.npz").is_file()}


def outcome(out: Path) -> list[dict[str, Any]]:
    """One row an initializer of each study, with the size of the output before training."""
    return [
        {
            "activation": name.replace("_", " "), **row,
            "output rms": float(np.sqrt(np.median(record.signals["second_moment"][i, 0, :, 0, -1]))),
        }
        for name, record in records(out).items()
        for i, row in enumerate(rows(record))
    ]  # fmt: skip


def main(out: Path, target: Path) -> Path:
    found = records(out)
    figure, axes = new_figure(2, 3, size=(14.4, 7.8))
    signal, *panels, rates = np.ravel(axes)
    shown = [name for name in found if not name.startswith("prelu") or len(found) == 1]
    for n, name in enumerate(shown):
        record, slope, style = found[name], float(name.split("_")[-1]), look(n)
        layers = np.arange(1, len(record.sites) + 1)
        for i, (kind, growth) in enumerate((("he", 1.0 + slope**2), ("slope-aware", 1.0))):
            measured = np.median(record.signals["second_moment"][i, 0, :, 0], axis=0)
            signal.plot(
                layers, measured, style.marker, color=style.colour, ms=3.5, mfc="white" if i else style.colour,
                label=f"slope {slope:g}, {kind}",
            )  # fmt: skip
            # the last layer has another width, not another law: its fan-in is that of the others
            signal.plot(layers, measured[0] * growth ** (layers - 1), color=style.colour, lw=0.9)
    signal.set_yscale("log")
    signal.set(
        xlabel="layer l", ylabel="mean of z² before training",
        title="medians of the seeds; lines: (1 + slope²)^l, and 1",
    )  # fmt: skip
    signal.legend(fontsize=8, loc="upper left")
    for ax, (name, record) in zip(panels, found.items(), strict=False):
        accuracy_curves(record, ax, f"{name.replace('_', ' ')}, {len(record.seeds)} seeds: median and range")
    for ax in panels[len(found) :]:
        ax.set_visible(False)
    by_rate(found[shown[-1]], rates, shown[-1].replace("_", " "))
    return finish(figure, target)
