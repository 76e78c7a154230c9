"""The zoo: healthy models of many families, and each with the faults that its users make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from _common import script

import jaxinit as ji

models = script("diagnose_models", "models")

VANISHING = frozenset({"vanishing_signal", "vanishing_gradient", "underflow"})
EXPLODING = frozenset({"exploding_signal", "exploding_gradient", "chaos", "overflow", "not_finite_signal"})
DEAD = frozenset({"dead_units", "zero_signal", "dying", "no_gradient", "stuck_at_zero"})
UNEVEN = frozenset({"step", "imbalance", "update_ratio"})
NOT_FINITE = frozenset({"not_finite_signal", "not_finite_gradient"})
UNTRAINED = frozenset({"unused_parameter", "no_gradient", "stuck_at_zero"})
FLAT = frozenset({"saturated_units", "dead_units"})
ALIKE = frozenset({"collapse", "rank_collapse"})
LARGE = frozenset({"large_values"})
IDENTICAL = frozenset({"identical_units"})

#: Families of the test half in which a miss was looked into, and led to a change: they are of the tuning half since.
LOOKED_AT = (
    "pre-LN Transformer", "LSTM", "tanh RNN", "GRU (nnx)", "post-activation ResNet", "μP MLP", "U-Net",
    "Q-network", "ConvNeXt",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Animal:
    """A model, what it is called with, and what is wrong with it.

    Attributes:
        family: of the healthy model it comes from.
        fault: what was planted, empty for a healthy model.
        kinds: of findings, any of which names the fault.
        places: of what was planted: a finding is in the right place if it names a site or parameter inside one.
            None where the fault is everywhere.
    """

    family: str
    model: Any
    x: Any
    fault: str = ""
    kinds: frozenset[str] = frozenset()
    places: tuple[str, ...] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.family}: {self.fault or 'healthy'}"


def family(
    name: str, make: Callable[..., Any], x: Any, **options: Any
) -> tuple[Animal, Callable[..., Animal]]:
    """The healthy model `make()`, and `plant(fault, kinds, places, **fields)` for `make(**fields)`."""

    def plant(fault: str, kinds: Any, places: str | None = None, **fields: Any) -> Animal:
        where = None if places is None else tuple(places.split())
        return Animal(name, make(**fields), x, fault, frozenset(kinds), where, options)

    return Animal(name, make(), x, options=options), plant


def rules(*pairs: Any) -> dict[str, Any]:
    """`rules("*/kernel", init, ...)` as the field of a model."""
    return {"rules": tuple(zip(pairs[::2], pairs[1::2], strict=True))}


def nnx_factory(cls: Any, **fixed: Any) -> Callable[..., Any]:
    """`make(**fields)` -> a factory `rngs -> module`."""
    return lambda **fields: lambda rngs: cls(rngs, **fixed, **fields)


def logarithm(x: Any, layer: int) -> Any:
    """After layer 5, of what is negative half of the time."""
    return jnp.log(x) if layer == 5 else x


def root(x: Any, layer: int) -> Any:
    """Times one and a standard deviation of one unit: sqrt(0), whose derivative is infinite."""
    return x * (1.0 + jnp.std(x[:, :1], axis=-1, keepdims=True)) if layer == 5 else x


def cut(x: Any, layer: int) -> Any:
    return jax.lax.stop_gradient(x) if layer == 5 else x


class Spare(models.MLP):  # type: ignore[name-defined]
    """With an auxiliary head that no loss sees."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        self.dense(7, "auxiliary")(x)
        return super().__call__(x)


class Frozen(models.Transformer):  # type: ignore[name-defined]
    """With a table of positions that is looked up and then forgotten."""

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        nn.Embed(16, 8, name="forgotten")(jnp.arange(tokens.shape[1]))
        return super().__call__(tokens)


def zoo() -> list[Animal]:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(32, 32)).astype("f4")
    images = rng.normal(size=(8, 16, 16, 3)).astype("f4")
    tokens = rng.integers(0, 64, size=(4, 16))
    series = rng.normal(size=(8, 12, 16)).astype("f4")
    out: list[Animal] = []
    ten = lambda init: ji.scaled(init, 10.0)  # noqa: E731
    he, lecun = ji.he_normal(), ji.lecun_normal()

    mlp, plant = family("ReLU MLP", models.MLP, vectors)
    out += [
        mlp,
        plant("one layer ×10", UNEVEN, "fc_5", **rules("fc_5/kernel", ten(he))),
        plant("one layer / 10", UNEVEN, "fc_5", **rules("fc_5/kernel", ji.scaled(he, 0.1))),
        plant("N(0, 1) weights", EXPLODING, **rules("*/kernel", ji.normal(1.0))),
        plant("N(0, 0.01²) weights", VANISHING, **rules("*/kernel", ji.normal(0.01))),
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros())),
        plant("constant weights", IDENTICAL, **rules("*/kernel", ji.constant(0.02))),
        plant("glorot, 20 layers", VANISHING, depth=20, kernel=ji.glorot_normal()),
        plant("biases of -5", DEAD, "fc_4", **rules("fc_4/bias", ji.constant(-5.0))),
        plant("log of negative numbers", NOT_FINITE, "fc_5 fc_6", between=logarithm),
        plant("sqrt at zero", NOT_FINITE, "fc_5 fc_6", between=root),
        plant("stop_gradient", UNTRAINED, "fc_0 fc_1 fc_2 fc_3 fc_4 fc_5", between=cut),
    ]
    spare, _ = family("ReLU MLP", Spare, vectors)
    out.append(dataclasses.replace(spare, fault="unused head", kinds=UNTRAINED, places=("auxiliary",)))

    bf16, plant = family(
        "GELU MLP in bfloat16", lambda **f: models.MLP(
            **{"activation": nn.gelu, "kernel": ji.scaled_for("gelu"), "dtype": jnp.bfloat16, "depth": 8} | f), vectors,
    )  # fmt: skip
    out += [
        bf16,
        plant("one layer ×10", UNEVEN, "fc_3", **rules("fc_3/kernel", ten(he))),
        plant("glorot, 20 layers", VANISHING, depth=20, kernel=ji.glorot_normal()),
        plant("N(0, 1) weights", EXPLODING, **rules("*/kernel", ji.normal(1.0))),
    ]

    half, plant = family(
        "ReLU MLP in float16", lambda **f: models.MLP(**{"dtype": jnp.float16, "depth": 8} | f), vectors
    )
    out += [half, plant("N(0, 1.5²) weights", NOT_FINITE | EXPLODING, **rules("*/kernel", ji.normal(1.5)))]

    tanh, plant = family("tanh MLP (nnx)", nnx_factory(models.NnxMLP), vectors)
    out += [
        tanh,
        plant("N(0, 1) weights", FLAT | EXPLODING, **rules("*/kernel", ji.normal(1.0))),
        plant("one layer ×30", FLAT | UNEVEN, "layers/3", **rules("layers/3/kernel", ji.scaled(lecun, 30.0))),
        plant("N(0, 0.01²) weights", VANISHING, **rules("*/kernel", ji.normal(0.01))),
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros())),
        plant("biases of 5", FLAT, "layers/2", **rules("layers/2/bias", ji.constant(5.0))),
    ]

    auto, plant = family("tanh autoencoder", models.Autoencoder, vectors)
    out += [
        auto,
        plant("one layer ×30", FLAT | UNEVEN, "fc_5", **rules("fc_5/kernel", ji.scaled(lecun, 30.0))),
        plant("constant weights", IDENTICAL, **rules("*/kernel", ji.constant(0.02))),
    ]

    cnn, plant = family("CNN with batch norm", models.CNN, images, train=True)
    out += [
        cnn,
        plant(
            "no norm, glorot, 16 layers",
            VANISHING,
            norm=False,
            layers=16,
            **rules("conv*/kernel", ji.glorot_normal()),
        ),
        plant("no norm, N(0, 1) weights", EXPLODING, norm=False, **rules("conv*/kernel", ji.normal(1.0))),
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros())),
        plant("one layer ×100", UNEVEN, "conv_3 norm_3", **rules("conv_3/kernel", ji.scaled(he, 100.0))),
    ]

    plain, plant = family("CNN without norm", lambda **f: models.CNN(norm=False, **f), images)
    fan = ji.variance_scaling(2.0, "fan_in", "truncated_normal", in_axis=-2, batch_axis=(0, 1))
    out += [
        plain,
        plant("fan of one pixel", EXPLODING, **rules("conv*/kernel", fan)),
        plant("one layer ×10", UNEVEN, "conv_5", **rules("conv_5/kernel", ten(he))),
        plant("biases of -5", DEAD, "conv_4", **rules("conv_4/bias", ji.constant(-5.0))),
    ]

    resnet, plant = family("ResNet, group norm", models.ResNet, images)
    out += [
        resnet,
        plant("no norm", EXPLODING, norm=False, blocks=24),
        plant("one branch ×100", UNEVEN, "block_4", **rules("block_4/conv_2/kernel", ji.scaled(he, 100.0))),
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros())),
    ]
    fixup = ji.residual(he, depth=24, rule="gpt2")
    small, plant = family("ResNet without norm, scaled branches", lambda **f: models.ResNet(
        **{"norm": False, "blocks": 24, "last": fixup} | f), images)  # fmt: skip
    out += [
        small,
        plant("branches not scaled", EXPLODING, last=he),
        plant(
            "one branch ×100",
            UNEVEN,
            "block_4 block_5",
            **rules("block_4/conv_2/kernel", ji.scaled(he, 100.0)),
        ),
    ]

    pre, plant = family("pre-LN Transformer", models.Transformer, tokens)
    out += [
        pre,
        plant("no norm, 16 blocks", EXPLODING, order="none", blocks=16),
        plant("one branch ×100", UNEVEN, "block_2", **rules("block_2/down/kernel", ji.scaled(lecun, 100.0))),
        plant("logits ×30²", UNEVEN, "block_2/attention", **rules(
            "block_2/attention/query/kernel", ji.scaled(lecun, 30.0),
            "block_2/attention/key/kernel", ji.scaled(lecun, 30.0))),
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros(), "*embed*", ji.zeros(), "places", ji.zeros())),
        plant("no skips, 12 blocks", ALIKE, skip=False, blocks=12),
    ]  # fmt: skip
    out.append(
        dataclasses.replace(
            family("pre-LN Transformer", Frozen, tokens)[0],
            fault="unused table",
            kinds=UNTRAINED,
            places=("forgotten",),
        )
    )
    float16 = {"dtype": jnp.float16}
    out.append(
        plant("logits overflow in float16", NOT_FINITE, "block_2", **float16, **rules(
            "block_2/attention/query/kernel", ji.scaled(lecun, 300.0),
            "block_2/attention/key/kernel", ji.scaled(lecun, 300.0)))
    )  # fmt: skip

    gpt, plant = family("GPT-2 style Transformer", lambda **f: models.Transformer(**{
        "kernel": ji.normal(0.02), "embed": ji.normal(0.02), "tied": True,
        "last": ji.residual(ji.normal(0.02), depth=3, rule="gpt2"), "blocks": 3} | f), tokens)  # fmt: skip
    out += [
        gpt,
        plant("one layer ×100", UNEVEN, "block_2", **rules("block_2/up/kernel", ji.normal(2.0))),
        plant("an embedding of 2e-5", UNEVEN, "embed", **rules("embed/embedding", ji.normal(2e-5))),
    ]

    post, plant = family(
        "post-LN Transformer", lambda **f: models.Transformer(**{"order": "post", "blocks": 3} | f), tokens
    )
    out += [
        post,
        plant("no norm, N(0, 1) weights", EXPLODING, order="none", **rules("block*kernel", ji.normal(1.0))),
    ]

    gated, plant = family(
        "gated Transformer, RMS norm",
        lambda **f: models.Transformer(**{"gated": True, "blocks": 3} | f),
        tokens,
    )
    out += [
        gated,
        plant("one gate ×100", UNEVEN, "block_1", **rules("block_1/gate/kernel", ji.scaled(lecun, 100.0))),
        plant("zero weights in every branch", DEAD | UNTRAINED, **rules("*/kernel", ji.zeros())),
        plant("no norm, N(0, 1) weights", EXPLODING, order="none", **rules("block*kernel", ji.normal(1.0))),
    ]

    lstm, plant = family("LSTM", models.Recurrent, series)
    out += [
        lstm,
        plant("recurrent N(0, 1), width 256", EXPLODING, width=256, **rules("*/recurrent", ji.normal(1.0))),
        plant("gate biases of 10", FLAT, "cell_1", **rules("cell_1/bias", ji.constant(10.0))),
        plant("zero weights", DEAD, **rules("*", ji.zeros())),
        plant("inputs ×100", FLAT | UNEVEN, "cell_0", **rules("cell_0/kernel", ji.scaled(lecun, 100.0))),
    ]

    moe, plant = family("mixture of experts", models.Experts, vectors)
    out += [
        moe,
        plant("one layer ×100", UNEVEN, "down_3", **rules("down_3", ji.normal(10.0))),
        plant("zero experts", DEAD | UNTRAINED, "up down", **rules("up_*", ji.zeros(), "down_*", ji.zeros())),
    ]

    unet, plant = family("U-Net", models.UNet, images)
    out += [
        unet,
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros())),
        plant("the head ×1000", UNEVEN, "head", **rules("head/kernel", ji.scaled(lecun, 1000.0))),
    ]

    vit, plant = family("ViT (nnx), head at zero", nnx_factory(models.ViT), images)
    out += [
        vit,
        plant("one layer ×100", UNEVEN, "blocks/1", **rules(
            "blocks/1/down/kernel", ji.scaled(lecun, 100.0), "head/kernel", lecun)),
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros())),
    ]  # fmt: skip

    base = ji.scaled_for("gelu")
    mup, plant = family("μP MLP", lambda **f: models.MLP(**{
        "kernel": ji.mup(base, (16, 16)), "head": ji.mup(lecun, (16, 10)), "activation": nn.gelu, "depth": 5,
        "width": 128, "rules": (("fc_0/kernel", ji.mup(lecun, (32, 16))),)} | f), vectors)  # fmt: skip
    out += [mup, plant("N(0, 1) weights", EXPLODING, **rules("*/kernel", ji.normal(1.0)))]

    simple, plant = family("tanh RNN", lambda **f: models.Recurrent(cell=nn.SimpleCell, **f), series)
    out += [
        simple,
        plant("recurrent N(0, 1)", EXPLODING, **rules("*/recurrent", ji.normal(1.0))),
        plant("inputs ×100", FLAT | UNEVEN, "cell_0", **rules("cell_0/kernel", ji.scaled(lecun, 100.0))),
    ]

    gru, plant = family("GRU (nnx)", nnx_factory(models.GRU), series)
    out += [
        gru,
        plant(
            "recurrent N(0, 1), width 256", EXPLODING | FLAT, width=256, **rules("recurrent", ji.normal(1.0))
        ),
        plant("gate biases of 10", FLAT, "rnn", **rules("bias", ji.constant(10.0))),
    ]

    after, plant = family("post-activation ResNet", models.AfterSum, images, train=True)
    out += [
        after,
        plant(
            "biases of -10", FLAT | DEAD, "norm_3_2 conv_4_1", **rules("norm_3_2/bias", ji.constant(-10.0))
        ),
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros())),
    ]

    pixels = rng.integers(0, 256, size=(8, 32, 32, 4)).astype("f4")
    frames, plant = family("Q-network", lambda **f: models.Frames(**{"divide": 255.0} | f), pixels)
    out += [
        frames,
        plant("inputs not divided", LARGE, "conv_0", divide=1.0),
        plant("one layer ×10", UNEVEN, "conv_1", **rules("conv_1/kernel", ten(he))),
        plant("sigmoid in place of ReLU", VANISHING | ALIKE, activation=nn.sigmoid),
        plant("biases of -5", DEAD, "conv_1", **rules("conv_1/bias", ji.constant(-5.0))),
        plant("N(0, 1) weights", EXPLODING | LARGE, **rules("*/kernel", ji.normal(1.0))),
    ]

    next_, plant = family("ConvNeXt", models.ConvNeXt, images)
    out += [
        next_,
        plant("one downsampling ×100", UNEVEN, "down_1", **rules(
            "down_1/kernel", ji.scaled(nn.initializers.truncated_normal(0.02), 100.0))),
        plant("zero weights", DEAD, **rules("*/kernel", ji.zeros())),
    ]  # fmt: skip
    return out


def half(animals: list[Animal], which: str) -> list[Animal]:
    """The "tuning" or the "test" half: every second family with its faults, and those that were looked at."""
    names = list(dict.fromkeys(a.family for a in animals))
    tuning = {*names[::2], *LOOKED_AT}
    return [a for a in animals if (a.family in tuning) == (which == "tuning")]
