"""Zeros, small random, Xavier and He on one network, and the rank of the first hidden layer while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import effective_rank, train

import jaxinit as ji
from jaxinit.compare import Dataset, load_data
from jaxinit.models import MLP

#: "small random" is the tutorials' 0.01 * randn. A constant is what zeros would be if its signal got through.
DRAWS = {
    "zeros": ji.zeros(),
    "constant 0.1": ji.constant(0.1),
    "small random": ji.normal(0.01),
    "xavier": ji.glorot_normal(),
    "he": ji.he_normal(),
}
FULL = {"depth": 5, "width": 64, "seeds": 10, "steps": 1000, "rates": (0.003, 0.01, 0.03, 0.1, 0.3)}
TINY = {"depth": 3, "width": 16, "seeds": 2, "steps": 20, "rates": (0.1,)}
RANK_AT = (0, 1, 3, 10, 30, 100, 300, 1000)


def ranks(model: MLP, data: Dataset, draws: dict[str, Any], rate: float, steps: int) -> list[list[float]]:
    """By initializer, the effective rank of the first hidden layer's outputs on validation data after RANK_AT steps.

    Full batches and plain gradient descent, so that nothing but the initializer could tell two units apart.
    """
    x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)

    def loss(params: Any) -> Any:
        logits = model.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params: Any) -> Any:
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

    found = []
    for draw in draws.values():
        params = model.clone(kernel_init=draw).init(jax.random.key(0), x[:1])["params"]
        found.append([])
        for t in range(steps + 1):
            if t in RANK_AT:
                layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["layer_1"])
                found[-1].append(effective_rank(data.x_validation @ layer["kernel"] + layer["bias"]))
            params = step(params)
    return found


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    data = load_data("digits")
    model = MLP(size["depth"], size["width"], data.outputs)
    train(
        out, "training", model, DRAWS, data, "momentum",
        seeds=size["seeds"], learning_rates=size["rates"], steps=size["steps"], signals=True,
        label=f"{size['depth']} layers of {size['width']}, digits, momentum",
    )  # fmt: skip
    steps = min(max(RANK_AT), size["steps"])
    at = [t for t in RANK_AT if t <= steps]
    table = np.array(ranks(model, data, DRAWS, 0.1, steps))
    np.savez(out / "ranks.npz", at=np.array(at), rank=table, names=np.array(list(DRAWS)))
    return out
