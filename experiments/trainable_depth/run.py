"""How deep a tanh network can be and still train, against six times the depth scale of correlations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _common import train

import jaxinit as ji
from jaxinit.compare import load_data
from jaxinit.models import MLP

BIAS = 0.05
FULL = {
    "weights": (1.0, 1.2, 1.4, 1.6, 1.76, 2.0, 2.4, 2.8, 3.4, 4.0), "depths": (5, 10, 20, 30, 45, 60, 80),
    "width": 64, "seeds": 2, "steps": 150, "rates": (0.001, 0.003, 0.01),
}  # fmt: skip
TINY = {"weights": (1.0, 1.76), "depths": (3, 6), "width": 16, "seeds": 1, "steps": 20, "rates": (0.01,)}


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    data = load_data("digits")
    draws = {f"{weight:g}": ji.variance_scaling(weight, "fan_in", "normal") for weight in size["weights"]}
    for depth in size["depths"]:
        model = MLP(depth, size["width"], data.outputs, "tanh", bias_init=ji.normal(BIAS**0.5))
        train(
            out, f"depth_{depth:03d}", model, draws, data, "momentum",
            seeds=size["seeds"], learning_rates=size["rates"], steps=size["steps"],
            label=f"tanh, {depth} layers of {size['width']}, digits",
        )  # fmt: skip
    grid = np.linspace(min(size["weights"]), max(size["weights"]), 60 if not tiny else 6)
    ji.meanfield.phase_diagram("tanh", grid, [BIAS]).save(out / "theory.npz")
    return out
