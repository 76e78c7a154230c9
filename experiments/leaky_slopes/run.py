"""He's initializer with and without the slope of leaky ReLU and PReLU, in deep plain networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _common import train
from flax import linen as nn

import jaxinit as ji
from jaxinit.compare import load_data
from jaxinit.models import MLP

#: The slope for negative inputs; PReLU's is one number a layer, starts there and is trained.
SLOPES = {"leaky_relu_0.01": 0.01, "leaky_relu_0.25": 0.25, "leaky_relu_0.5": 0.5, "prelu_0.25": 0.25}
RATES = (0.00001, 0.0001, 0.001, 0.003, 0.01, 0.03)
FULL = {"depth": 40, "width": 64, "seeds": 5, "steps": 300, "rates": RATES, "activations": tuple(SLOPES)}
TINY = {"depth": 5, "width": 16, "seeds": 2, "steps": 20, "rates": (0.01,), "activations": ("prelu_0.25",)}


def activation(name: str) -> Any:
    """z where z > 0, else slope * z."""
    slope = SLOPES[name]
    if name.startswith("prelu"):
        return lambda z: nn.PReLU(negative_slope_init=slope)(z)
    return lambda z: nn.leaky_relu(z, slope)


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    data = load_data("digits")
    for name in size["activations"]:
        # the two draw the same numbers, times another factor
        draws = {"he": ji.he_normal(), "he, slope-aware": ji.he_normal(negative_slope=SLOPES[name])}
        train(
            out, name, MLP(size["depth"], size["width"], data.outputs, activation(name)), draws, data, "momentum",
            seeds=size["seeds"], learning_rates=size["rates"], steps=size["steps"], signals=True,
            label=f"{name.replace('_', ' ')}, {size['depth']} layers of {size['width']}, digits",
        )  # fmt: skip
    return out
