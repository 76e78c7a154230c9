"""The probe of real modules against simulation and theory: three programs that share no numerics.

An MLP written in linen and in nnx, and `Network`, are drawn from one law; every figure must agree within 5
standard errors (of both), with theory up to a bias of BIAS L / n of its size. Sizes fixed beforehand.
"""

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import jaxinit as ji
from jaxinit.models import MLP
from jaxinit.probe import probe

DEPTH, WIDTH, SEEDS, VARIANCE = 5, 96, 192, 1.9
BIAS = 4.0
NAMES = (
    "log_second_moment", "mean", "kurtosis", "correlation", "log_grad_second_moment", "grad_correlation",
    "weight_grad_norm",
)  # fmt: skip
#: Of hidden layers: the last one has no nonlinearity in a real model.
HIDDEN = ("dead_fraction", "saturated_fraction", "zero_fraction")


def inputs() -> np.ndarray:
    """Two inputs of mean square 1 and cosine 1/2."""
    frame, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, 2)))
    mix = np.asarray([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
    return (mix @ frame.T * np.sqrt(WIDTH)).astype("f4")


def law(variance: float) -> Any:
    return jax.nn.initializers.variance_scaling(variance, "fan_in", "normal")


class Deep(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List(
            [
                nnx.Linear(WIDTH, WIDTH, use_bias=False, kernel_init=law(VARIANCE), rngs=rngs)
                for _ in range(DEPTH)
            ]
        )

    def __call__(self, x: Any) -> Any:
        for n, layer in enumerate(self.layers):
            x = layer(x if n == 0 else nnx.relu(x))
        return x


def linen(variance: float) -> MLP:
    return MLP(DEPTH, WIDTH, WIDTH, kernel_init=law(variance), use_bias=False)


@pytest.fixture(scope="module")
def simulated() -> ji.Propagation:
    network = ji.Network(DEPTH, WIDTH, "relu", weight_variance=VARIANCE, input_width=WIDTH)
    return ji.simulate(network, SEEDS, x=inputs(), root=7)


def worst(a: ji.Propagation, b: ji.Propagation) -> dict[str, float]:
    """The largest difference of each figure, in units of 5 standard errors."""
    out = {}
    for name in NAMES + HIDDEN:
        rows = slice(0, DEPTH - 1 if name in HIDDEN else DEPTH)
        one, two = a[name], b[name]
        # the last gradient is r itself, the same for both inputs: its correlation is exactly 1 in both
        error = np.hypot(one.stderr[rows], two.stderr[rows]) + 1e-6
        out[name] = float(np.max(np.abs(one.mean[rows] - two.mean[rows]) / (5 * error)))
    return out


@pytest.mark.parametrize("model", [linen(VARIANCE), Deep], ids=["linen", "nnx"])
def test_probe_is_simulation_is_theory(model: Any, simulated: ji.Propagation) -> None:
    run = probe(model, inputs(), seeds=SEEDS)
    assert len(run.sites) == DEPTH and run.inputs == 2 and run.pairs == simulated.pairs
    assert [site.activation for site in run.layout] == [True] * (DEPTH - 1) + [False]
    found = worst(run, simulated)
    assert max(found.values()) < 1, found
    theory = ji.meanfield.propagate(ji.Network(DEPTH, WIDTH, "relu", weight_variance=VARIANCE))
    for name in ("second_moment", "correlation", "grad_second_moment", "grad_correlation"):
        want = theory[name].mean
        room = 5 * run[name].stderr + BIAS * DEPTH / WIDTH * np.maximum(np.abs(want), 1e-3)
        assert np.all(np.abs(run[name].mean - want) < room), name


def test_twin_another_law_is_seen(simulated: ji.Propagation) -> None:
    found = worst(probe(linen(VARIANCE * 1.1), inputs(), seeds=SEEDS), simulated)
    assert found["log_second_moment"] > 1 and found["log_grad_second_moment"] > 1, found
