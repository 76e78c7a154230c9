"""The models that `calibrate` is tried on, each with a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Animal(NamedTuple):
    """A model by name, and what it is called with."""

    name: str
    model: nn.Module
    x: Any


class MLP(nn.Module):
    depth: int
    width: int
    activation: Callable[[Any], Any]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for _ in range(self.depth - 1):
            x = self.activation(nn.Dense(self.width, dtype=self.dtype, param_dtype=self.dtype)(x))
        return nn.Dense(10, dtype=self.dtype, param_dtype=self.dtype)(x)


class VGG(nn.Module):
    stages: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for n in range(self.stages):
            for _ in range(2):
                x = nn.relu(nn.Conv(16 * 2**n, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


class ResidualCNN(nn.Module):
    blocks: int
    norm: bool

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(16, (3, 3))(x)
        for _ in range(self.blocks):
            h = nn.relu(nn.GroupNorm(4)(x) if self.norm else x)
            h = nn.Conv(16, (3, 3))(h)
            h = nn.relu(nn.GroupNorm(4)(h) if self.norm else h)
            x = x + nn.Conv(16, (3, 3))(h)
        return nn.Dense(10)(nn.relu(x).mean(axis=(1, 2)))


class UNet(nn.Module):
    depth: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        kept = []
        for n in range(self.depth):
            x = nn.silu(nn.Conv(8 * 2**n, (3, 3))(x))
            kept.append(x)
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.silu(nn.Conv(8 * 2**self.depth, (3, 3))(x))
        for n in reversed(range(self.depth)):
            x = nn.ConvTranspose(8 * 2**n, (2, 2), strides=(2, 2))(x)
            x = nn.silu(nn.Conv(8 * 2**n, (3, 3))(jnp.concatenate([x, kept[n]], axis=-1)))
        return nn.Conv(3, (1, 1))(x)


class Block(nn.Module):
    """A Transformer block, its normalization before or behind each branch."""

    width: int
    pre: bool = True
    gated: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        for branch in (self.attend, self.feed):
            x = x + branch(nn.LayerNorm(dtype=self.dtype)(x)) if self.pre else nn.LayerNorm()(x + branch(x))
        return x, None

    def attend(self, x: Any) -> Any:
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        return nn.MultiHeadDotProductAttention(4, dtype=self.dtype)(x, x, mask=mask)

    def feed(self, x: Any) -> Any:
        h = nn.Dense(4 * self.width, dtype=self.dtype)(x)
        h = nn.silu(h) * nn.Dense(4 * self.width, dtype=self.dtype)(x) if self.gated else nn.gelu(h)
        return nn.Dense(self.width, dtype=self.dtype)(h)


class Transformer(nn.Module):
    blocks: int
    pre: bool = True
    gated: bool = False
    tied: bool = False
    scanned: bool = False
    dtype: Any = jnp.float32
    width: int = 32

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embed = nn.Embed(64, self.width, dtype=self.dtype)
        x = embed(tokens)
        settings = {"width": self.width, "pre": self.pre, "gated": self.gated, "dtype": self.dtype}
        if self.scanned:
            stack = nn.scan(
                nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=self.blocks
            )
            x, _ = stack(name="blocks", **settings)(x, None)
        else:
            for _ in range(self.blocks):
                x, _ = Block(**settings)(x)
        x = nn.LayerNorm(dtype=self.dtype)(x) if self.pre else x
        return embed.attend(x) if self.tied else nn.Dense(64, dtype=self.dtype)(x)


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for _ in range(2):
            x = nn.RNN(nn.OptimizedLSTMCell(32))(x)
        return nn.Dense(10)(x[:, -1])


class Experts(nn.Module):
    """Layers of experts that every example is shared among."""

    layers: int
    experts: int = 4

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for n in range(self.layers):
            shape = (self.experts, x.shape[-1], 32)
            up = self.param(f"up_{n}", nn.initializers.lecun_normal(batch_axis=0), shape)
            down = self.param(f"down_{n}", nn.initializers.lecun_normal(batch_axis=0), (self.experts, 32, 32))
            share = nn.softmax(nn.Dense(self.experts, name=f"router_{n}")(x))
            h = nn.gelu(jnp.einsum("bd,edh->beh", x, up))
            x = jnp.einsum("beh,be->bh", jnp.einsum("beh,ehk->bek", h, down), share)
        return nn.Dense(10, name="head")(x)


def wave(x: Any) -> Any:
    """A nonlinearity in no catalogue."""
    return x * jnp.cos(x) + 0.1


def zoo(tiny: bool = False) -> list[Animal]:
    """Small, deep enough that scales off by ten are far away; `tiny`, for tests: one stack and one that branches."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(64, 32)).astype("f4")
    if tiny:
        return [
            Animal("leaky ReLU MLP, 4 layers", MLP(4, 64, nn.leaky_relu), vectors),
            Animal("mixture of experts, 1 layer", Experts(1), vectors),
        ]
    images = rng.normal(size=(8, 16, 16, 3)).astype("f4")
    tokens = rng.integers(0, 64, size=(4, 16))
    series = rng.normal(size=(8, 12, 16)).astype("f4")
    return [
        Animal("tanh MLP, 20 layers", MLP(20, 64, jnp.tanh), vectors),
        Animal("gelu MLP, 20 layers", MLP(20, 64, nn.gelu), vectors),
        Animal("leaky ReLU MLP, 30 layers", MLP(30, 64, nn.leaky_relu), vectors),
        Animal("x cos x + 0.1 MLP, 12 layers", MLP(12, 64, wave), vectors),
        Animal(
            "gelu MLP in bfloat16, 12 layers",
            MLP(12, 64, nn.gelu, jnp.bfloat16),
            vectors.astype(jnp.bfloat16),
        ),
        Animal("VGG-like", VGG(3), images),
        Animal("residual CNN, no norm", ResidualCNN(4, norm=False), images),
        Animal("residual CNN, group norm", ResidualCNN(4, norm=True), images),
        Animal("U-Net", UNet(2), images),
        Animal("pre-LN Transformer, tied head", Transformer(3, tied=True), tokens),
        Animal("post-LN Transformer", Transformer(3, pre=False), tokens),
        Animal("gated pre-LN Transformer", Transformer(2, gated=True), tokens),
        Animal("scanned, rematerialized Transformer", Transformer(4, scanned=True), tokens),
        Animal("Transformer, bfloat16 signals", Transformer(2, dtype=jnp.bfloat16), tokens),
        Animal("LSTM, 2 layers", Recurrent(), series),
        Animal("mixture of experts (einsum)", Experts(3), vectors),
    ]


@functools.cache
def _init(model: nn.Module) -> Any:
    return jax.jit(model.init)


def spoiled(animal: Animal, seed: int = 0) -> Any:
    """The model's own parameters, every matrix (and every layer of a stack) times 10^u, u uniform in (-1, 1)."""
    drawn = _init(animal.model)(jax.random.key(seed), animal.x)["params"]
    rng = np.random.default_rng(seed)

    def off(path: Any, leaf: Any) -> Any:
        stack = leaf.shape[:1] if "blocks" in str(path[0]) else ()
        factor = 10.0 ** rng.uniform(-1, 1, stack + (1,) * (leaf.ndim - len(stack)))
        return leaf * jnp.asarray(factor, leaf.dtype) if leaf.ndim - len(stack) > 1 else leaf

    return jax.tree_util.tree_map_with_path(off, drawn)
