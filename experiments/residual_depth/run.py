"""Plain He, Fixup, GPT-2's scaling and SkipInit in deep residual networks without normalization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _common import Scheme, by_schemes, schemes, train
from flax import linen as nn

import jaxinit as ji
from jaxinit.compare import load_data

RATES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1)
ARMS = ("he", "gpt2", "fixup", "skipinit")
FULL = {"arms": ARMS, "depths": (4, 16, 64), "width": 64, "seeds": 4, "steps": 200, "rates": RATES}
TINY = {"arms": ARMS[1:3], "depths": (2,), "width": 16, "seeds": 2, "steps": 20, "rates": (0.01,)}


class Block(nn.Module):
    """h + scale * (W2 relu(W1 relu(h) + b1) + b2); the scale is one trained number."""

    width: int

    @nn.compact
    def __call__(self, h: Any, _: None) -> tuple[Any, None]:
        scale = self.param("scale", nn.initializers.ones, ())
        branch = nn.Dense(self.width, name="first")(nn.relu(h))
        return h + scale * nn.Dense(self.width, name="last")(nn.relu(branch)), None


class ResidualMLP(nn.Module):
    """A layer into the stream, `depth` blocks one after the other, a layer out of it."""

    depth: int
    width: int
    features: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        h = nn.Dense(self.width, name="stem")(x)
        blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        h, _ = blocks(self.width, name="blocks")(h, None)
        return nn.Dense(self.features, name="head")(nn.relu(h))


def arms(depth: int) -> dict[str, Scheme]:
    """All have He's weights in the stem, and in the blocks where nothing else is said."""
    he, stacked = ji.he_normal(), ji.for_stack(ji.he_normal())
    return schemes(
        he={"*/kernel": he, "blocks/*/kernel": stacked},
        gpt2={
            "*/kernel": he,
            "blocks/last/kernel": ji.residual(stacked, depth, "gpt2", branches=1),
            "blocks/first/kernel": stacked,
        },
        fixup={
            "head/kernel": ji.zeros(),
            "*/kernel": he,
            "blocks/last/kernel": ji.zeros(),
            "blocks/first/kernel": ji.residual(stacked, depth, "fixup"),
        },
        skipinit={"blocks/scale": ji.zeros(), "*/kernel": he, "blocks/*/kernel": stacked},
    )


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    data = load_data("digits")
    for depth in size["depths"]:
        drawn = {name: scheme for name, scheme in arms(depth).items() if name in size["arms"]}
        train(
            out, f"blocks_{depth:03d}", by_schemes(ResidualMLP(depth, size["width"], data.outputs)), drawn,
            data, "momentum", seeds=size["seeds"], learning_rates=size["rates"], steps=size["steps"],
            label=f"{depth} residual blocks of {size['width']}, digits",
        )  # fmt: skip
    return out
