"""He's initializer drawn in bfloat16: by jax.nn.initializers and by jaxinit, 20 layers deep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import train

import jaxinit as ji
from jaxinit.compare import load_data
from jaxinit.models import MLP

DRAWS = {"jax.nn, bf16": jax.nn.initializers.he_normal(), "jaxinit, bf16": ji.he_normal()}
FULL = {
    "entries": 1024, "depth": 20, "widths": (64, 256, 1024), "networks": 8,
    "trained": 256, "seeds": 3, "steps": 150, "rates": (0.001, 0.003, 0.01, 0.03),
}  # fmt: skip
TINY = {
    "entries": 64, "depth": 4, "widths": (32,), "networks": 2,
    "trained": 32, "seeds": 2, "steps": 10, "rates": (0.003,),
}  # fmt: skip


def signal(draw: Any, dtype: Any, width: int, depth: int, networks: int) -> list[list[float]]:
    """Mean square of z by layer, `(networks, depth)`: weights drawn in `dtype`, products in float32; q = 1."""

    @jax.jit
    def one(key: Any) -> Any:
        def layer(h: Any, k: Any) -> tuple[Any, Any]:
            z = h @ draw(k, (width, width), dtype).astype(jnp.float32)
            return jax.nn.relu(z), jnp.mean(jnp.square(z))

        first, rest = jax.random.split(key)
        return jax.lax.scan(layer, jax.random.normal(first, (width,)), jax.random.split(rest, depth))[1]

    return [np.asarray(one(jax.random.key(n)), np.float64).tolist() for n in range(networks)]


def moments(draw: Any, dtype: Any, side: int) -> dict[str, float]:
    """Mean and deviation of the entries in units of sqrt(2 / fan-in), and how many values there are."""
    w = np.asarray(draw(jax.random.key(0), (side, side), dtype), np.float64) / np.sqrt(2.0 / side)
    return {"mean": w.mean(), "deviation": w.std(), "values": int(np.unique(w).size)}


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    out.mkdir(parents=True, exist_ok=True)
    cases = {name: (draw, jnp.bfloat16) for name, draw in DRAWS.items()}
    cases["jax.nn, float32"] = (DRAWS["jax.nn, bf16"], jnp.float32)
    measured = {
        name: {
            "entries": moments(*case, size["entries"]),
            "signal": {
                width: signal(*case, width, size["depth"], size["networks"]) for width in size["widths"]
            },
        }
        for name, case in cases.items()
    }
    (out / "signal.json").write_text(json.dumps({"jax": jax.__version__, "cases": measured}))
    data = load_data("digits")
    model = MLP(size["depth"], size["trained"], data.outputs, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    train(
        out, "training", model, DRAWS, data, "momentum",
        seeds=size["seeds"], learning_rates=size["rates"], steps=size["steps"],
        label=f"{size['depth']} layers of {size['trained']}, parameters and computation in bf16, digits",
    )  # fmt: skip
    return out
