"""Small models of the families that people train, whose every initializer can be replaced by its path."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import jaxinit as ji

#: (pattern of paths, initializer): the first that matches a path draws it.
Rules = tuple[tuple[str, Any], ...]

HE, LECUN, ZEROS = ji.he_normal(), ji.lecun_normal(), ji.zeros()


def pick(rules: Rules, path: str, default: Any) -> Any:
    return next((init for pattern, init in rules if fnmatch(path, pattern)), default)


class Drawn(nn.Module):
    """A module whose parts are drawn by rules over their paths."""

    rules: Rules = ()

    def draw(self, name: str, default: Any) -> Any:
        return pick(self.rules, "/".join([*self.path, name]), default)

    def dense(self, features: int, name: str, kernel: Any = LECUN, **more: Any) -> nn.Dense:
        return nn.Dense(
            features, kernel_init=self.draw(f"{name}/kernel", kernel), bias_init=self.draw(f"{name}/bias", ZEROS),
            name=name, **more,
        )  # fmt: skip

    def conv(self, features: int, name: str, kernel: Any = HE, size: int = 3, **more: Any) -> nn.Conv:
        return nn.Conv(
            features, (size, size), kernel_init=self.draw(f"{name}/kernel", kernel),
            bias_init=self.draw(f"{name}/bias", ZEROS), name=name, **more,
        )  # fmt: skip


class MLP(Drawn):
    depth: int = 12
    width: int = 64
    features: int = 10
    activation: Callable[[Any], Any] = nn.relu
    kernel: Any = HE
    head: Any = LECUN
    dtype: Any = jnp.float32
    #: What stands between the blocks; its name in the program is that of the layer before it.
    between: Callable[[Any, int], Any] = lambda x, layer: x

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for layer in range(self.depth - 1):
            x = self.activation(self.dense(self.width, f"fc_{layer}", self.kernel, dtype=self.dtype)(x))
            x = self.between(x, layer)
        return self.dense(self.features, "head", self.head, dtype=self.dtype)(x)


class CNN(Drawn):
    """Convolutions with or without batch normalization, and a head."""

    layers: int = 8
    norm: bool = True

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        for n in range(self.layers):
            x = self.conv(16 if n < self.layers // 2 else 32, f"conv_{n}")(x)
            if self.norm:
                x = nn.BatchNorm(use_running_average=not train, name=f"norm_{n}")(x)
            x = nn.relu(x)
            if n == self.layers // 2 - 1:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return self.dense(10, "head")(x.mean(axis=(1, 2)))


class Frames(Drawn):
    """Three strided convolutions, then dense layers on all that they left: a Q-network of frames."""

    activation: Callable[[Any], Any] = nn.relu
    divide: float = 1.0

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = x / self.divide
        for n, (width, size, stride) in enumerate(((16, 4, 2), (32, 3, 2), (32, 3, 1))):
            x = self.activation(self.conv(width, f"conv_{n}", size=size, strides=stride)(x))
        x = self.activation(self.dense(64, "fc", HE)(x.reshape(x.shape[0], -1)))
        return self.dense(6, "q")(x)


class ConvNeXtBlock(Drawn):
    width: int = 16
    gamma: float = 1e-6

    @nn.compact
    def __call__(self, x: Any) -> Any:
        small = nn.initializers.truncated_normal(0.02)
        h = self.conv(self.width, "dwconv", small, size=7, feature_group_count=self.width)(x)
        h = nn.gelu(self.dense(4 * self.width, "up", small)(nn.LayerNorm(name="norm")(h)))
        h = self.dense(self.width, "down", small)(h)
        return x + self.param("gamma", self.draw("gamma", ji.constant(self.gamma)), (self.width,)) * h


class ConvNeXt(Drawn):
    """Stages of blocks behind LayerScale, between them layers of the stream that downsample."""

    stages: tuple[int, ...] = (2, 2)

    @nn.compact
    def __call__(self, x: Any) -> Any:
        small = nn.initializers.truncated_normal(0.02)
        for s, blocks in enumerate(self.stages):
            if s:
                x = nn.LayerNorm(name=f"down_norm_{s}")(x)
            x = self.conv(16 * 2**s, f"down_{s}", small, size=2, strides=2)(x)
            if not s:
                x = nn.LayerNorm(name="stem_norm")(x)
            for b in range(blocks):
                x = ConvNeXtBlock(self.rules, 16 * 2**s, name=f"stage{s}_block{b}")(x)
        return self.dense(10, "head", small)(nn.LayerNorm(name="norm")(x.mean(axis=(1, 2))))


class Bottleneck(Drawn):
    norm: bool = True
    last: Any = HE

    @nn.compact
    def __call__(self, x: Any) -> Any:
        h = nn.GroupNorm(4, name="norm_1")(x) if self.norm else x
        h = self.conv(16, "conv_1")(nn.relu(h))
        h = nn.GroupNorm(4, name="norm_2")(h) if self.norm else h
        return x + self.conv(16, "conv_2", self.last)(nn.relu(h))


class AfterSum(Drawn):
    """A residual network as He et al. 2016 first had it: ReLU after the sum."""

    blocks: int = 6

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        def norm(name: str, bias: Any = ZEROS) -> Any:
            return nn.BatchNorm(
                use_running_average=not train, bias_init=self.draw(f"{name}/bias", bias), name=name
            )

        x = nn.relu(norm("norm")(self.conv(16, "stem")(x)))
        for n in range(self.blocks):
            h = nn.relu(norm(f"norm_{n}_1")(self.conv(16, f"conv_{n}_1")(x)))
            x = nn.relu(x + norm(f"norm_{n}_2")(self.conv(16, f"conv_{n}_2")(h)))
        return self.dense(10, "head")(x.mean(axis=(1, 2)))


class ResNet(Drawn):
    """Blocks before which the stream is normalized; without, their last layers start small (`last`)."""

    blocks: int = 8
    norm: bool = True
    last: Any = HE

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = self.conv(16, "stem", LECUN)(x)
        for n in range(self.blocks):
            x = Bottleneck(self.rules, self.norm, self.last, name=f"block_{n}")(x)
        return self.dense(10, "head")(nn.relu(x).mean(axis=(1, 2)))


class Attention(Drawn):
    """Self-attention in few lines, so that its logits can be spoilt."""

    heads: int = 4
    kernel: Any = LECUN
    last: Any = LECUN
    dtype: Any = jnp.float32
    causal: bool = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        size = x.shape[-1] // self.heads

        def project(name: str) -> Any:
            return nn.DenseGeneral(
                (self.heads, size), kernel_init=self.draw(f"{name}/kernel", self.kernel), dtype=self.dtype, name=name
            )(x)  # fmt: skip

        q, k, v = (project(name) for name in ("query", "key", "value"))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / size**0.5
        if self.causal:
            logits = jnp.where(jnp.tril(jnp.ones(logits.shape[-2:], bool)), logits, -jnp.inf)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(logits), v)
        return nn.DenseGeneral(
            x.shape[-1], axis=(-2, -1), kernel_init=self.draw("out/kernel", self.last), dtype=self.dtype, name="out"
        )(mixed)  # fmt: skip


class Block(Drawn):
    order: str = "pre"
    gated: bool = False
    kernel: Any = LECUN
    last: Any = LECUN
    dtype: Any = jnp.float32
    causal: bool = True
    skip: bool = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        more = {"kernel": self.kernel, "last": self.last, "dtype": self.dtype, "causal": self.causal}
        attention = Attention(self.rules, name="attention", **more)
        norms = [self.norm(name) for name in ("norm_1", "norm_2")]
        for norm, branch in zip(norms, (attention, self.feed), strict=True):
            if self.order == "pre":
                x = self.add(x, branch(norm(x)))
            else:
                x = norm(self.add(x, branch(x)))
        return x

    def norm(self, name: str) -> Any:
        if self.order == "none":
            return lambda x: x
        if self.gated:
            return nn.RMSNorm(dtype=self.dtype, name=name)
        return nn.LayerNorm(dtype=self.dtype, name=name)

    def add(self, x: Any, branch: Any) -> Any:
        return x + branch if self.skip else branch

    def feed(self, x: Any) -> Any:
        wide, settings = 4 * x.shape[-1], {"dtype": self.dtype}
        h = self.dense(wide, "up", self.kernel, **settings)(x)
        h = nn.silu(h) * self.dense(wide, "gate", self.kernel, **settings)(x) if self.gated else nn.gelu(h)
        return self.dense(x.shape[-1], "down", self.last, **settings)(h)


class Transformer(Drawn):
    """Language models; with `order="pre"` and `last` smaller by sqrt(2 blocks), as GPT-2 is drawn."""

    blocks: int = 4
    width: int = 32
    order: str = "pre"
    gated: bool = False
    kernel: Any = LECUN
    last: Any = LECUN
    embed: Any = ji.normal(1.0)
    tied: bool = False
    dtype: Any = jnp.float32
    skip: bool = True

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        table = nn.Embed(
            64, self.width, embedding_init=self.draw("embed/embedding", self.embed), dtype=self.dtype, name="embed"
        )  # fmt: skip
        places = self.param("places", self.draw("places", self.embed), (tokens.shape[1], self.width))
        x = table(tokens) + places.astype(self.dtype)
        for n in range(self.blocks):
            more = {"kernel": self.kernel, "last": self.last, "dtype": self.dtype, "skip": self.skip}
            x = Block(self.rules, self.order, self.gated, **more, name=f"block_{n}")(x)
        if self.order == "pre":
            x = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        return table.attend(x) if self.tied else self.dense(64, "head", self.kernel, dtype=self.dtype)(x)


class Recurrent(Drawn):
    """Two layers of cells of one class: LSTMCell, SimpleCell."""

    cell: Any = nn.LSTMCell
    width: int = 32

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for n in range(2):
            cell = self.cell(
                self.width, kernel_init=self.draw(f"cell_{n}/kernel", LECUN), name=f"cell_{n}",
                recurrent_kernel_init=self.draw(f"cell_{n}/recurrent", ji.orthogonal()),
                bias_init=self.draw(f"cell_{n}/bias", ZEROS),
            )  # fmt: skip
            x = nn.RNN(cell, name=f"rnn_{n}")(x)
        return self.dense(10, "head")(x[:, -1])


class Experts(Drawn):
    """Residual layers of experts, each of which a router gives a share of every example."""

    layers: int = 5
    experts: int = 4
    width: int = 32

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = self.dense(self.width, "stem")(x)
        stacked = ji.lecun_normal(batch_axis=0)
        for n in range(self.layers):
            h = nn.LayerNorm(name=f"norm_{n}")(x)
            up = self.param(
                f"up_{n}", self.draw(f"up_{n}", stacked), (self.experts, self.width, 2 * self.width)
            )
            down = self.param(
                f"down_{n}", self.draw(f"down_{n}", stacked), (self.experts, 2 * self.width, self.width)
            )
            share = nn.softmax(self.dense(self.experts, f"router_{n}")(h))
            h = jnp.einsum("beh,ehk->bek", nn.gelu(jnp.einsum("bd,edh->beh", h, up)), down)
            x = x + jnp.einsum("bek,be->bk", h, share)
        return self.dense(10, "head")(nn.LayerNorm(name="norm")(x))


class UNet(Drawn):
    depth: int = 3

    @nn.compact
    def __call__(self, x: Any) -> Any:
        kept = []
        for n in range(self.depth):
            x = nn.silu(nn.GroupNorm(4, name=f"down_norm_{n}")(self.conv(8 * 2**n, f"down_{n}")(x)))
            kept.append(x)
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.silu(self.conv(8 * 2**self.depth, "middle")(x))
        for n in reversed(range(self.depth)):
            x = jax.image.resize(x, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3]), "nearest")
            x = self.conv(8 * 2**n, f"up_{n}")(jnp.concatenate([x, kept[n]], axis=-1))
            x = nn.silu(nn.GroupNorm(4, name=f"up_norm_{n}")(x))
        return self.conv(3, "head", LECUN, 1)(x)


class Autoencoder(Drawn):
    """tanh units down to a narrow code and up again; the code's log variance is exponentiated."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        out, size = x.shape[-1], (64, 32, 16, 4, 16, 32, 64)
        for n, width in enumerate(size):
            x = nn.tanh(self.dense(width, f"fc_{n}", LECUN)(x))
        return self.dense(out, "head")(x)


# ---- nnx ------------------------------------------------------------------------------------------------


class NnxMLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, rules: Rules = (), depth: int = 8, activation: Any = nnx.tanh) -> None:
        sizes = [32, *[64] * (depth - 1), 10]
        self.layers = nnx.List(
            nnx.Linear(
                sizes[n], sizes[n + 1], kernel_init=pick(rules, f"layers/{n}/kernel", LECUN),
                bias_init=pick(rules, f"layers/{n}/bias", ZEROS), rngs=rngs,
            )
            for n in range(depth)
        )  # fmt: skip
        self.activation = activation

    def __call__(self, x: Any) -> Any:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, width: int, path: str, rules: Rules) -> None:
        def kernel(name: str, default: Any = LECUN) -> Any:
            return pick(rules, f"{path}/{name}/kernel", default)

        self.norm_1, self.norm_2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            4, width, kernel_init=kernel("attention"), out_kernel_init=kernel("attention/out"), decode=False, rngs=rngs
        )  # fmt: skip
        self.up = nnx.Linear(width, 4 * width, kernel_init=kernel("up"), rngs=rngs)
        self.down = nnx.Linear(4 * width, width, kernel_init=kernel("down"), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = x + self.attention(self.norm_1(x))
        return x + self.down(nnx.gelu(self.up(self.norm_2(x))))


class ViT(nnx.Module):
    """Patches of an image through Transformer blocks, with a class token and a head that starts at zero."""

    def __init__(self, rngs: nnx.Rngs, rules: Rules = (), blocks: int = 3, width: int = 32) -> None:
        self.patches = nnx.Conv(
            3, width, (4, 4), strides=4, kernel_init=pick(rules, "patches/kernel", LECUN), rngs=rngs
        )
        self.token = nnx.Param(jnp.zeros((1, 1, width)))
        self.places = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 17, width)))
        self.blocks = nnx.List(NnxBlock(rngs, width, f"blocks/{n}", rules) for n in range(blocks))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 10, kernel_init=pick(rules, "head/kernel", ZEROS), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.patches(x).reshape(x.shape[0], -1, self.token.shape[-1])
        token = jnp.broadcast_to(self.token[...], (x.shape[0], 1, x.shape[-1]))
        x = jnp.concatenate([token, x], axis=1) + self.places[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class GRU(nnx.Module):
    """A cell whose three gates are parts of one product each of the input and the state."""

    def __init__(self, rngs: nnx.Rngs, rules: Rules = (), width: int = 32) -> None:
        cell = nnx.GRUCell(
            16, width, kernel_init=pick(rules, "kernel", LECUN), bias_init=pick(rules, "bias", ZEROS),
            recurrent_kernel_init=pick(rules, "recurrent", ji.orthogonal()), rngs=rngs,
        )  # fmt: skip
        self.rnn, self.head = nnx.RNN(cell), nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.rnn(x)[:, -1])
