"""The zoo: networks whose health is known from theory, and networks with a planted fault.

Networks of one line share a compiled program: they differ in numbers only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

import jaxinit as ji
from jaxinit.network import Residual

#: Fault -> the kinds of finding any of which names it.
KINDS = {
    "healthy": frozenset(),
    "vanishing": frozenset({"vanishing_signal", "vanishing_gradient", "underflow"}),
    "exploding": frozenset({"exploding_signal", "exploding_gradient", "overflow", "not_finite_signal"}),
    "chaos": frozenset({"chaos", "exploding_gradient"}),
    "collapse": frozenset({"collapse"}),
    "dead": frozenset({"dead_units", "zero_signal", "dying", "no_gradient"}),
    "identical": frozenset({"identical_units"}),
    "uneven": frozenset({"step", "imbalance"}),
    "saturated": frozenset({"saturated_units", "dead_units"}),
}


@dataclasses.dataclass(frozen=True)
class Animal:
    """A network and what is wrong with it, a key of `KINDS`."""

    planted: str
    network: ji.Network
    note: str = ""

    @property
    def name(self) -> str:
        n = self.network
        width = n.width if isinstance(n.width, int) else f"{max(n.width)} to {min(n.width)}"
        return f"{n.label}, depth {n.depth}, width {width}"


def _variances(
    depth: int, width: int, activation: Any, faults: dict[float, str], **more: Any
) -> list[Animal]:
    return [Animal(f, ji.Network(depth, width, activation, v, **more)) for v, f in faults.items()]


def _laws(depth: int, width: Any, activation: str, faults: dict[Any, str], **more: Any) -> list[Animal]:
    return [Animal(f, ji.Network(depth, width, activation, initializer=i, **more)) for i, f in faults.items()]


def _residual(
    depth: int, width: int, activation: str, faults: dict[float, str], order: str = "pre", **more: Any
) -> list[Animal]:
    return [
        Animal(f, ji.Network(depth, width, activation, 2.0, residual=Residual(beta=b, order=order), **more))
        for b, f in faults.items()
    ]


def zoo() -> list[Animal]:
    """All animals. Health is by theory: end to end the second moments of signal and gradient change by less than
    10^3 and 1 - c by less than exp(-6) in what is called healthy, by more in what is not.
    """
    fine, falls, grows = "healthy", "vanishing", "exploding"
    out = [
        *_variances(100, 32, "relu", {2.0: fine, 1.0: falls, 3.0: grows, 1 / 3: falls}),
        *_variances(20, 128, "relu", {2.0: fine, 1.0: falls, 8.0: grows, 1e5: grows, 1e-8: falls}),
        *_variances(50, 512, "relu", {2.0: fine, 1.0: falls, 4.0: grows}),
        *_variances(5, 64, "relu", {2.0: fine, 1.0: fine}),
        *_variances(40, 1024, "relu", {2.0: fine}),
        *_variances(400, 256, "relu", {2.0: "collapse"}),
        *_variances(30, 64, "relu", {2.0: fine, 1.0: falls, 4.0: grows}, ensemble="orthogonal"),
        *_variances(20, 128, "relu", {2.0: fine, 0.9: falls}, bias_variance=1e-8),
        *_variances(50, 128, "leaky_relu", {2.0: fine, 1.0: falls}),
        *_variances(30, 128, "tanh", {1.0: fine, 0.5: falls, 9.0: "chaos", 400.0: "saturated", 4.0: "chaos"}),
        *_variances(50, 64, "tanh", {1.76095: fine, 4.0: "chaos"}, bias_variance=0.05),
        *_variances(50, 64, "tanh", {0.5: "collapse", 0.8: "collapse", 0.2: "collapse"}, bias_variance=0.1),
        *_variances(100, 256, "tanh", {1.76095: fine, 3.0: "chaos", 0.9: "collapse"}, bias_variance=0.05),
        *_variances(40, 128, "erf", {1.37584: fine, 6.0: "chaos", 0.5: "collapse"}, bias_variance=0.05),
        *_variances(10, 128, "gelu", {2.3517: fine, 1.0: falls, 6.0: grows}),
        *_variances(50, 64, "gelu", {1.0: falls}),
        *_variances(8, 128, "silu", {2.8108: fine, 1.0: falls}),
        *_variances(50, 256, "selu", {1.0: fine, 2.0: grows, 0.2: falls}),
        *_variances(50, 128, "identity", {1.0: fine, 0.7: falls, 1.5: grows}),
        *_variances(20, 128, "sigmoid", {1.0: "collapse"}),
        *_variances(6, 64, "hard_tanh", {200.0: "saturated", 2.0: fine}),
        *_variances(6, 64, jnp.exp, {2.0: grows}),
        *_residual(60, 128, "relu", {60**-0.5: fine, 1.0: grows, 0.05: fine}),
        *_residual(15, 128, "tanh", {1.0: fine, 0.2: fine}),
        *_residual(100, 128, "tanh", {1.0: grows}),
        *_residual(40, 64, "relu", {0.1: fine, 1.0: grows}, order="post"),
        *_residual(60, 128, "relu", {1.0: fine, 0.3: fine}, norm="layer"),
        *_variances(50, 128, "relu", {2.0: fine, 200.0: fine}, norm="layer"),
        *_variances(100, 128, "tanh", {1.0: "chaos"}, norm="rms"),
        *_variances(10, 128, "relu", {2.0: fine}, dropout=0.1),
        *_variances(10, 128, "relu", {2.0: grows}, dropout=0.9),
        *_laws(6, (512, 256, 128, 64, 32, 10), "relu", {ji.he_normal(): fine}, input_width=784),
        *_variances(10, (64,) * 9 + (1,), "relu", {2.0: fine}),  # type: ignore[arg-type]
        *_laws(20, 64, "relu", {ji.he_uniform(): fine, ji.glorot_uniform(): falls}),
        *_laws(10, 64, "relu", {ji.normal(1.0): grows, ji.normal(0.01): falls}),
        *_laws(8, 64, "relu", {ji.uniform(-0.2, 0.05): "dead", ji.uniform(-0.4, 0.0): "dead"}),
        *_laws(10, 64, "tanh", {ji.zeros(): "dead"}),
        *_laws(8, 64, "gelu", {ji.constant(0.1): "identical", ji.constant(0.01): "identical"}),
        *_laws(12, (256,) * 6 + (8,) + (256,) * 5, "relu", {ji.normal((2 / 256) ** 0.5): "uneven"}),
        *_laws(12, (128,) * 4 + (4,) + (128,) * 7, "relu", {ji.normal((2 / 128) ** 0.5): "uneven"}),
    ]
    assert all(a.planted in KINDS for a in out)
    return out


#: Of the test half until a mistake there was looked into, and led to a change; of the tuning half since.
LOOKED_AT = ("relu gaussian, σw²=2, depth 10, width 64 to 1",)


def half(animals: list[Animal], which: str) -> list[Animal]:
    """The "tuning" or the "test" half: of every fault, the first, third, ... or the second, fourth, ... animal."""
    test = {id(a) for fault in KINDS for a in [a for a in animals if a.planted == fault][1::2]}
    return [a for a in animals if (id(a) in test and a.name not in LOOKED_AT) == (which == "test")]
