"""How deep a plain convolutional network trains from delta-orthogonal, orthogonal, Gaussian and He kernels."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import effective_rank, train
from flax import linen as nn

import jaxinit as ji
from jaxinit.compare import load_data
from jaxinit.models import Model, from_functions

#: As in the paper: so little that the fixed point is small and tanh nearly linear.
BIAS = 2e-5
ARMS = ("he", "gaussian, critical", "orthogonal, critical", "delta-orthogonal")
FULL = {
    "arms": ARMS, "depths": (8, 32, 128), "channels": 16,
    "seeds": 2, "steps": 100, "rates": (0.001, 0.003, 0.01),
}  # fmt: skip
TINY = {"arms": ARMS[2:], "depths": (4,), "channels": 8, "seeds": 2, "steps": 10, "rates": (0.003,)}


class Layer(nn.Module):
    """tanh of a 3 x 3 convolution with circular padding, written as a product with the patches.

    (XLA's convolution inside a loop is seven times slower on CPU at this size.)
    """

    channels: int
    kernel_init: Any
    bias_init: Any

    @nn.compact
    def __call__(self, x: Any, _: None) -> tuple[Any, None]:
        kernel = self.param("kernel", self.kernel_init, (3, 3, self.channels, self.channels))
        bias = self.param("bias", self.bias_init, (self.channels,))
        patches = jnp.concatenate(
            [jnp.roll(x, (a, b), (1, 2)) for a in (1, 0, -1) for b in (1, 0, -1)], axis=-1
        )
        return jnp.tanh(patches @ kernel.reshape(-1, self.channels) + bias), None


class PlainCNN(nn.Module):
    """8 x 8 images to 4 x 4 positions, `depth` equal layers, a layer out; `kernel_init` is that of the equal layers."""

    depth: int
    channels: int
    features: int
    bias_init: Any
    kernel_init: Any = nn.initializers.lecun_normal()

    def setup(self) -> None:
        self.stem = nn.Conv(self.channels, (3, 3), strides=2)
        layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        self.layers = layers(self.channels, self.kernel_init, self.bias_init)
        self.head = nn.Dense(self.features)

    def stack(self, x: Any) -> Any:
        """Activations `(images, 4, 4, channels)` behind the last of the equal layers."""
        return self.layers(jnp.tanh(self.stem(x.reshape(-1, 8, 8, 1))), None)[0]

    def __call__(self, x: Any) -> Any:
        return self.head(self.stack(x).reshape(x.shape[0], -1))


def compiled(module: PlainCNN) -> Model:
    """The module with one compiled draw for each initializer."""

    @functools.partial(jax.jit, static_argnums=0)
    def init(initializer: Any, key: Any, x: Any) -> Any:
        return module.clone(kernel_init=initializer).init(key, x)["params"]

    return from_functions(init, lambda params, x: module.apply({"params": params}, x), "PlainCNN")


def arms() -> tuple[dict[str, Any], Any]:
    """Kernels by name, all but He's of the critical variance; and the biases."""
    point = ji.meanfield.critical("tanh", BIAS)[0]
    sigma = point.weight_variance**0.5
    draws = {
        "he": ji.he_normal(),
        "gaussian, critical": ji.variance_scaling(point.weight_variance, "fan_in", "normal"),
        "orthogonal, critical": ji.orthogonal(sigma),
        "delta-orthogonal": ji.delta_orthogonal(sigma),
    }
    return draws, ji.normal(BIAS**0.5)


def before_training(
    model: Model, module: PlainCNN, draws: dict[str, Any], x: Any
) -> dict[str, dict[str, float]]:
    """By initializer: what 64 images are like behind the last layer, of one draw.

    "second moment" over all units, and "rank": the effective rank of the 64 activations less their mean.
    """
    out = {}
    stack = jax.jit(functools.partial(module.apply, method="stack"))
    for name, draw in draws.items():
        params, _ = model.init(draw, jax.random.key(0, impl="threefry2x32"), x[:1])
        a = np.asarray(stack({"params": params}, x[:64]), np.float64).reshape(len(x[:64]), -1)
        out[name] = {"second moment": float(np.square(a).mean()), "rank": effective_rank(a - a.mean(axis=0))}
    return out


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    data = load_data("digits")
    every, bias_init = arms()
    draws = {name: every[name] for name in size["arms"]}
    start = {}
    for depth in size["depths"]:
        module = PlainCNN(depth, size["channels"], data.outputs, bias_init)
        model = compiled(module)
        train(
            out, f"layers_{depth:04d}", model, draws, data, "momentum", batch_size=32,
            seeds=size["seeds"], learning_rates=size["rates"], steps=size["steps"],
            label=f"tanh, {depth} convolutions of {size['channels']} channels, digits",
        )  # fmt: skip
        start[depth] = before_training(model, module, draws, data.x_test)
    (out / "before.json").write_text(json.dumps(start))
    return out
