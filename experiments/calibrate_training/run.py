"""Models trained from what Flax draws, from what one would choose by hand, and from calibrated parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from _common import rows, train

import jaxinit as ji
from jaxinit.compare import load_data
from jaxinit.models import MLP

FULL = {"depth": 20, "blocks": 8, "width": 64, "seeds": 4, "steps": 400, "rates": (0.003, 0.01, 0.03)}
TINY = {"depth": 4, "blocks": 1, "width": 16, "seeds": 1, "steps": 20, "rates": (0.03,)}
BATCH = 64


class Gated(nn.Module):
    """Residual blocks with a gate and an activation of their own, no norm: what no initializer was derived for."""

    blocks: int
    width: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Dense(self.width, name="in")(x)
        for n in range(self.blocks):
            h = nn.Dense(2 * self.width, name=f"up_{n}")(x)
            h = h * jnp.tanh(h) * nn.sigmoid(nn.Dense(2 * self.width, name=f"gate_{n}")(x))
            x = x + nn.Dense(self.width, name=f"down_{n}")(h)
        return nn.Dense(10, name="head")(x)


def models(size: dict[str, Any]) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """By name: the model, and the initializers that one would choose by hand."""
    depth, width = size["depth"], size["width"]
    return {
        "tanh": (
            MLP(depth, width, 10, "tanh"), {"xavier": "xavier", "orthogonal, critical": ji.orthogonal(1.05)}
        ),
        "gelu": (MLP(depth, width, 10, "gelu"), {"he": "he", "gain of gelu": ji.scaled_for("gelu")}),
        "gated": (Gated(size["blocks"], width), {"xavier": "xavier", "he": "he"}),
    }  # fmt: skip


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    data = load_data("digits")
    for name, (model, chosen) in models(size).items():
        arms = {
            "Flax's default": ji.lecun_normal(), **chosen,
            "lsuv": ji.calibrated("lsuv"), "critical": ji.calibrated("critical"),
        }  # fmt: skip
        train(
            out, name, ji.calibratable(model, data.x_train[:BATCH]), arms, data, "momentum", seeds=size["seeds"],
            learning_rates=size["rates"], steps=size["steps"], batch_size=BATCH, label=name,
        )  # fmt: skip
    return out


def outcome(out: Path) -> list[dict[str, Any]]:
    """One row a model and initializer."""
    found = []
    for name in models(FULL):
        found += [{"model": name, **row} for row in rows(ji.load(out / f"{name}.npz"))]
    return found
