"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _common import accuracy_curves, finish, rows

import jaxinit as ji
from jaxinit.plot import new_figure
from jaxinit.plot._style import look


def outcome(out: Path) -> list[dict[str, object]]:
    """One row an initializer, with the ranks before and after, and the gradient before training."""
    record = ji.load(out / "training.npz")
    with np.load(out / "ranks.npz") as ranks:
        rank = ranks["rank"]
    return [
        {
            **row, "rank before": float(rank[i, 0]), "rank after": float(rank[i, -1]),
            "first gradient": float(np.median(record.signals["grad_rms"][i, 0, :, 0, 0])),
        }
        for i, row in enumerate(rows(record))
    ]  # fmt: skip


def main(out: Path, target: Path) -> Path:
    record = ji.load(out / "training.npz")
    figure, (training, gradient, rank) = new_figure(1, 3, size=(14.4, 4.4))
    title = f"at its best learning rate; median, least to greatest of {len(record.seeds)} seeds"
    accuracy_curves(record, training, title)
    layers = np.arange(1, len(record.sites) + 1)
    with np.load(out / "ranks.npz") as ranks:
        at, values = ranks["at"], ranks["rank"]
    for i, name in enumerate(record.initializers):
        style = look(i)
        size = np.median(record.signals["grad_rms"][i, 0, :, 0], axis=0)
        shown = {"color": style.colour, "ls": style.dash, "marker": style.marker, "ms": 4.5, "label": name}
        gradient.plot(layers, np.where(size > 0, size, np.nan), **shown)
        rank.plot(at, values[i], **shown)
    gradient.set_yscale("log")
    gradient.set_xticks(layers)
    gradient.set(
        xlabel="layer", ylabel="root mean square of dL/dW", title="gradients before training; zeros: all 0"
    )
    gradient.legend(fontsize=8)
    rank.set_xscale("symlog", linthresh=1.0)
    rank.set_yscale("symlog", linthresh=1.0)
    rank.set_yticks([0, 1, 3, 10, 30], ["0", "1", "3", "10", "30"])
    rank.set(
        xlabel="steps of full-batch gradient descent, rate 0.1", ylabel="effective rank",
        title="rank of the first hidden layer on validation data",
    )  # fmt: skip
    return finish(figure, target)
