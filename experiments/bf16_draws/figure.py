"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from _common import accuracy_curves, by_rate, finish, rows

import jaxinit as ji
from jaxinit.plot import new_figure
from jaxinit.plot._style import look


def measured(out: Path) -> dict[str, Any]:
    """By case: moments of the entries; by width, mean squares `(networks, depth)`."""
    return json.loads((out / "signal.json").read_text())["cases"]


def typical(signal: list[list[float]]) -> np.ndarray:
    """Geometric mean over networks of the mean square, by layer."""
    return np.exp(np.log(np.asarray(signal)).mean(axis=0))


def outcome(out: Path) -> list[dict[str, Any]]:
    """One row a way to draw: entries, signal at the last layer for each width, training where it was trained."""
    trained = {row["initializer"]: row for row in rows(ji.load(out / "training.npz"))}
    shown = ("best rate", "test accuracy", "steps to the level", "diverged")
    found = []
    for name, case in measured(out).items():
        last = {f"z² at the end, width {w}": float(typical(s)[-1]) for w, s in case["signal"].items()}
        training = {key: trained[name][key] if name in trained else "" for key in shown}
        found.append({"draw": name, **case["entries"], **last, **training})
    return found


def main(out: Path, target: Path) -> Path:
    record, cases = ji.load(out / "training.npz"), measured(out)
    figure, (signal, training, rates) = new_figure(1, 3, size=(14.4, 4.6))
    widths = list(next(iter(cases.values()))["signal"])
    for n, (name, case) in enumerate(cases.items()):
        for width, dash in zip(widths, (":", "--", "-"), strict=False):
            size = typical(case["signal"][width])
            layers = np.arange(1, len(size) + 1)
            style, every = look(n), (n, len(cases))  # two of the cases lie on top of each other
            signal.plot(
                layers, size, color=style.colour, ls=dash, marker=style.marker, ms=4, markevery=every,
                label=f"{name}, width {width}",
            )  # fmt: skip
    signal.set_yscale("log")
    signal.xaxis.get_major_locator().set_params(integer=True)
    networks = len(case["signal"][widths[0]])
    signal.set(xlabel="layer", ylabel="mean of z²", title=f"before training, typical of {networks} networks")
    signal.legend(fontsize=7, loc="lower left")
    title = f"trained in bf16, {len(record.seeds)} seeds: median and range"
    accuracy_curves(record, training, title)
    by_rate(record, rates, "the same over the learning rate")
    return finish(figure, target)
