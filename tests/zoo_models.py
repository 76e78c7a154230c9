"""Small models of every shape that linen, nnx and plain functions come in, and the sites each should have."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6)).astype("f4")
IMAGES = RNG.normal(size=(2, 6, 6, 3)).astype("f4")
TOKENS = RNG.integers(0, 11, size=(2, 5))
SERIES = RNG.normal(size=(2, 3, 6)).astype("f4")
GATES = ("ii*", "hi*", "if*", "hf*", "ig*", "hg*", "io*", "ho*")


class Two(nn.Module):
    def setup(self) -> None:
        self.a, self.b = nn.Dense(6), nn.Dense(4)

    def __call__(self, x: Any) -> Any:
        return self.b(nn.relu(self.a(x)))


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x)))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(4, (1, 1), name="stem")(x)
        x = x + nn.Conv(4, (3, 3), name="conv")(nn.relu(nn.GroupNorm(2, name="norm")(x)))
        return x.mean(axis=(1, 2))


class Language(nn.Module):
    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embed = nn.Embed(11, 8, name="embed")
        x = embed(tokens)
        h = nn.LayerNorm(name="ln1")(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="att")(h, h)
        h = nn.gelu(nn.Dense(16, name="up")(nn.LayerNorm(name="ln2")(x)))
        return embed.attend(x + nn.Dense(8, name="down")(h))


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        d = nn.Dense(6, name="d")
        return d(nn.tanh(d(x)))


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        cell = nn.LSTMCell(4, name="cell")
        state, y = cell(cell.initialize_carry(jax.random.key(0), x.shape), x)
        return {"y": y, "state": state}


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return {"out": nn.RNN(nn.LSTMCell(4, name="cell"), name="rnn")(x)}


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        return x + nn.Dense(6, name="fc")(nn.relu(nn.LayerNorm(name="ln")(x))), None


class Stack(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        block = nn.remat(Block) if self.remat else Block
        scanned = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(2, name="out")(scanned(name="layers")(x, None)[0])


class Unrolled(nn.Module):
    """The twin of `Stack`."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for n in range(3):
            x, _ = Block(name=f"layers_{n}")(x)
        return nn.Dense(2, name="out")(x)


class Remat(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.remat(Two)(name="two")(x)


class Members(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        members = nn.vmap(
            Two, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=2
        )
        return members(name="members")(x)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.relu(nn.Dense(6)(x))


class Jitted(nn.Module):
    """Two equal modules under nn.jit, which traces their code once."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        layer = nn.jit(Layer)
        return layer(name="j1")(layer(name="j0")(x))


class Branches(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        a, b = nn.Dense(6, name="a"), nn.Dense(6, name="b")
        if self.is_initializing():
            a(x), b(x)
        return nn.cond(jnp.sum(x) > 1e9, lambda _, x: a(x), lambda _, x: b(x), self, x)


class InnerVjp(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        y, back = nn.vjp(lambda m, x: jnp.sum(m(x) ** 2), nn.Dense(6, name="d"), x)
        return nn.Dense(2, name="out")(back(jnp.ones_like(y))[1] + x)


class InnerJvp(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        d = nn.Dense(6, name="d")
        y, t = nn.jvp(lambda m, x: m(x), d, (x,), (jnp.ones_like(x),), variable_tangents={})
        return nn.Dense(2, name="out")(y + t)


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(2, name="out")(nn.relu(nn.WeightNorm(nn.Dense(6, name="d"))(x)))


class Pieces(nn.Module):
    """Two products, of which the second is the output."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        b, c = (self.param(name, nn.initializers.lecun_normal(), (6, 6)) for name in "bc")
        return jnp.tanh(x @ b) @ c


class Loop(nn.Module):
    """One product, in a loop."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        w = self.param("w", nn.initializers.lecun_normal(), (6, 6))
        return jax.lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ w), x)


class Inside(nnx.Module):
    """For the bridge to linen; it goes through its parts by name."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.parts = nnx.Dict(a=nnx.Linear(6, 6, rngs=rngs), b=nnx.Linear(6, 4, rngs=rngs))

    def __call__(self, x: Any) -> Any:
        for part in self.parts.values():
            x = nnx.relu(part(x))
        return x


class ByHand(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = Loop(name="loop")(Pieces(name="pieces")(x))
        return nnx.bridge.to_linen(Inside, name="inside")(x)


class Pair(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.a, self.b = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.b(nnx.relu(self.a(x)))


class Sub(Pair):
    pass


class Super(Pair):
    def __call__(self, x: Any) -> Any:
        return super().__call__(x) * 2


class NnxConv(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.drop, self.out = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(144, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.drop(nnx.relu(self.norm(self.conv(x))))
        return self.out(x.reshape(x.shape[0], -1))


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.ln, self.fc = nnx.LayerNorm(6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.fc(nnx.relu(self.ln(x)))


class NnxStack(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        make = nnx.split_rngs(splits=3)(nnx.vmap(NnxBlock, in_axes=(0,), out_axes=0))
        self.layers, self.out = make(rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        body = nnx.remat(lambda x, layer: layer(x))
        return self.out(nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.layers))


class NnxAttention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed, self.ln = nnx.Embed(11, 8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)
        self.att = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        return self.embed.attend(x + self.att(self.ln(x)))


class NnxRecurrent(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.rnn = nnx.RNN(nnx.LSTMCell(6, 4, rngs=rngs))

    def __call__(self, x: Any) -> Any:
        return self.rnn(x)


@nnx.jit
def helper(layer: nnx.Linear, x: Any) -> Any:
    """Traced by whoever calls it first."""
    return nnx.relu(layer(x))


class NnxJitted(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.a, self.b = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return helper(self.b, helper(self.a, x))


class Bridged(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linen = nnx.bridge.ToNNX(Two(), rngs=rngs).lazy_init(jnp.ones((1, 6)))
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(self.linen(x))


class NnxSequential(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.seq = nnx.Sequential(nnx.Linear(6, 6, rngs=rngs), nnx.relu, nnx.Linear(6, 3, rngs=rngs))

    def __call__(self, x: Any) -> Any:
        return self.seq(x)


def init_functions(key: Any) -> Any:
    a, b = jax.random.split(key)
    return {"layers": {"w": jax.random.normal(a, (4, 6, 6))}, "out": {"w": jax.random.normal(b, (6, 2))}}


def apply_functions(params: Any, x: Any) -> Any:
    x, _ = jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, params["layers"]["w"], reverse=True)
    return x @ params["out"]["w"]


class Case(NamedTuple):
    model: Any
    x: Any
    sites: tuple[str, ...]  # with * behind those followed by a nonlinearity
    train: bool = False
    axis: int = 0


def each(path: str, steps: Any, inside: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{path}[{n}]{name}" for n in steps for name in inside)


LSTM = (*(f"/{gate}" for gate in GATES), ".0.0", ".0.1")
CASES: dict[str, Case] = {
    "sequential": Case(nn.Sequential([nn.Dense(6), nn.relu, nn.Dense(3)]), X, ("layers_0*", "layers_2")),
    "bf16": Case(
        nn.Sequential([nn.Dense(6, dtype=jnp.bfloat16), nn.gelu, nn.Dense(3, dtype=jnp.bfloat16)]), X,
        ("layers_0*", "layers_2"),
    ),
    "setup": Case(Two(), X, ("a*", "b")),
    "conv": Case(ConvNet(), IMAGES, ("Conv_0", "BatchNorm_0*", "Dropout_0", "Dense_0"), train=True),
    "conv, evaluated": Case(ConvNet(), IMAGES, ("Conv_0", "BatchNorm_0*", "Dropout_0", "Dense_0")),
    "resnet": Case(ResNet(), IMAGES, ("stem", "norm*", "conv", "output")),
    "language": Case(
        Language(), TOKENS,
        ("embed", "ln1", "att/query", "att/key", "att/value", "att/out", "ln2", "up*", "down", "output"),
    ),
    "shared": Case(Shared(), X, ("d*", "d#1")),
    "cell": Case(Cell(), X, tuple(f"cell{name}" for name in LSTM)),
    "rnn": Case(Recurrent(), SERIES, (*each("cell", range(3), LSTM), "rnn")),
    "scan": Case(Stack(), X, (*each("layers", range(3), ("/ln*", "/fc", "")), "out")),
    "scan, remat": Case(Stack(remat=True), X, (*each("layers", range(3), ("/ln*", "/fc", "")), "out")),
    "remat": Case(Remat(), X, ("two/a*", "two/b")),
    "vmap": Case(Members(), X, ("members/a*", "members/b"), axis=1),
    "jit": Case(Jitted(), X, ("j0/Dense_0*", "j0", "j1/Dense_0*", "j1")),
    "cond": Case(Branches(), X, ("b", "a", "output")),
    "vjp": Case(InnerVjp(), X, ("d", "d#1", "out")),
    "jvp": Case(InnerJvp(), X, ("d#1", "d", "out")),
    "weight norm": Case(Normed(), X, ("d*", "out")),
    "by hand": Case(
        ByHand(), X,
        ("pieces/b*", "pieces", "loop[0]*", "loop[1]*", "loop", "inside/parts/a*", "inside/parts/b*", "inside"),
    ),
    "nnx": Case(Pair, X, ("a*", "b")),
    "nnx lambda": Case(lambda rngs: Pair(rngs), X, ("a*", "b")),
    "nnx subclass": Case(Sub, X, ("a*", "b")),
    "nnx super": Case(Super, X, ("a*", "b", "output")),
    "nnx conv": Case(NnxConv, IMAGES, ("conv", "norm*", "drop", "out"), train=True),
    "nnx scan, remat": Case(NnxStack, X, (*each("layers", range(3), ("/ln*", "/fc", "")), "out")),
    "nnx attention": Case(
        NnxAttention, TOKENS, ("embed", "ln", "att/query", "att/key", "att/value", "att/out", "output")
    ),
    "nnx rnn": Case(
        NnxRecurrent, SERIES,
        (*each("rnn/cell", range(3), tuple(n.replace("/if", "/if_") for n in LSTM)), "rnn"),
    ),
    "nnx jit": Case(NnxJitted, X, ("a*", "b*", "output")),
    "bridge": Case(Bridged, X, ("linen/a*", "linen/b", "out")),
    "nnx sequential": Case(NnxSequential, X, ("seq/layers/0*", "seq/layers/2")),
    "functions": Case((init_functions, apply_functions), X, (*each("layers", (3, 2, 1, 0), ("*",)), "out")),
}  # fmt: skip
