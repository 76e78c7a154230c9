"""Transformer stacks from default, depth-scaled, T-Fixup and mimetic weights, with three places of the norm."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import Scheme, by_schemes, train
from flax import linen as nn

import jaxinit as ji
from jaxinit.compare import load_data

HEADS, SYMBOLS, LENGTH = 4, 8, 10
ARMS = ("default", "depth-scaled", "t-fixup", "mimetic")
FULL = {
    "arms": ARMS, "norms": ("none", "pre", "post"), "depth": 6, "width": 32, "examples": 4000,
    "seeds": 3, "steps": 300, "rates": (0.001, 0.003),
}  # fmt: skip
TINY = {
    "arms": ARMS[2:], "norms": ("pre",), "depth": 2, "width": 8, "examples": 100,
    "seeds": 2, "steps": 10, "rates": (0.003,),
}  # fmt: skip


def sequences(examples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`(examples, LENGTH, SYMBOLS + 1)`: random symbols, one-hot, with one marked; the label is the symbol after it.

    No position alone says anything about the label: it takes attention to the mark and to what follows it.
    """
    generator = np.random.default_rng(seed)
    symbols = generator.integers(SYMBOLS, size=(examples, LENGTH))
    mark = generator.integers(LENGTH - 1, size=examples)
    x = np.zeros((examples, LENGTH, SYMBOLS + 1), np.float32)
    np.put_along_axis(x, symbols[..., None], 1.0, axis=-1)
    x[np.arange(examples), mark, SYMBOLS] = 1.0
    return x, symbols[np.arange(examples), mark + 1]


class Block(nn.Module):
    """Self-attention, then two layers at each position; `norm`: before each branch, after each sum, or nowhere."""

    width: int
    norm: str

    @nn.compact
    def __call__(self, h: Any, _: None) -> tuple[Any, None]:
        for name, branch in (("attention", self.attention), ("feed_forward", self.feed_forward)):
            given = nn.LayerNorm(name=f"{name}_norm")(h) if self.norm == "pre" else h
            h = h + branch(given)
            h = nn.LayerNorm(name=f"{name}_norm")(h) if self.norm == "post" else h
        return h, None

    def attention(self, h: Any) -> Any:
        def heads(name: str) -> Any:
            z = nn.Dense(self.width, use_bias=False, name=name)(h)
            return z.reshape(*h.shape[:-1], HEADS, -1)

        mixed = jax.nn.dot_product_attention(heads("query"), heads("key"), heads("value"))
        return nn.Dense(self.width, use_bias=False, name="out")(mixed.reshape(h.shape))

    def feed_forward(self, h: Any) -> Any:
        return nn.Dense(self.width, name="down")(nn.relu(nn.Dense(4 * self.width, name="up")(h)))


class Stack(nn.Module):
    """Symbols and positions embedded, `depth` blocks, the mean over positions, a layer out."""

    depth: int
    width: int
    features: int
    norm: str

    @nn.compact
    def __call__(self, x: Any) -> Any:
        where = self.param("positions", nn.initializers.normal(1.0), (x.shape[1], self.width))
        h = nn.Dense(self.width, name="embed")(x) + where
        blocks = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        h, _ = blocks(self.width, self.norm, name="blocks")(h, None)
        h = nn.LayerNorm(name="norm")(h) if self.norm == "pre" else h
        return nn.Dense(self.features, name="head")(h.mean(axis=1))


@dataclasses.dataclass(frozen=True)
class Mimetic(Scheme):
    """The attention kernels of each block drawn together, after the rules for all others."""

    def __call__(self, params: Any, key: Any) -> Any:
        new = super().__call__(params, key)
        depth, width, _ = new["blocks"]["query"]["kernel"].shape
        keys = jax.random.split(jax.random.fold_in(key, 1), depth)
        drawn = jax.vmap(lambda k: ji.mimetic_attention(k, width, HEADS))(keys)
        return new | {"blocks": new["blocks"] | {name: {"kernel": w} for name, w in drawn._asdict().items()}}


def arms(depth: int) -> dict[str, Scheme]:
    """All draw the embedding and the head as Flax does."""
    lecun, xavier = ji.for_stack(ji.lecun_normal()), ji.for_stack(ji.glorot_normal())
    default = {"blocks/*/kernel": lecun}
    smaller = {f"blocks/{name}/kernel": ji.residual(lecun, depth, "gpt2") for name in ("out", "down")}
    fixed = ji.residual(xavier, depth, "t_fixup")
    t_fixup = {f"blocks/{name}/kernel": fixed for name in ("value", "out", "up", "down")}
    return {
        "default": Scheme(tuple(default.items())),
        "depth-scaled": Scheme(tuple((smaller | default).items())),
        "t-fixup": Scheme(tuple((t_fixup | {"blocks/*/kernel": xavier}).items())),
        "mimetic": Mimetic(tuple(default.items())),
    }


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    data = load_data(sequences(size["examples"]), standardize=None)
    drawn = {name: scheme for name, scheme in arms(size["depth"]).items() if name in size["arms"]}
    for norm in size["norms"]:
        model = by_schemes(Stack(size["depth"], size["width"], data.outputs, norm))
        train(
            out, f"norm_{norm}", model, drawn, data, "adam", batch_size=32,
            seeds=size["seeds"], learning_rates=size["rates"], steps=size["steps"],
            label=f"{size['depth']} blocks of {size['width']}, norm: {norm}, the symbol after the mark",
        )  # fmt: skip
    return out
