"""Recurrent networks at infinite width against simulation: one W for all steps, an input at every step, skips.

Each figure must agree within 5 standard errors plus a bias of BIAS T / n of its size, fixed beforehand.
"""

import dataclasses

import numpy as np
import pytest

import jaxinit as ji
from jaxinit.meanfield import _propagate
from jaxinit.meanfield._layers import exact, gradients
from jaxinit.network import Residual

STEPS, WIDTH, SEEDS, BIAS = 5, 1024, 48, 4.0
NAMES = ["second_moment", "correlation", "grad_second_moment", "grad_correlation", "weight_grad_norm"]
KINDS = {
    "driven": {"activation": "tanh", "input_width": 700},
    "driven, skips": {"activation": "relu", "residual": Residual(0.9, 0.5)},
    "skips after units": {
        "activation": "gelu", "residual": Residual(0.9, 0.5, order="post"), "input_weight_variance": None,
    },
}  # fmt: skip
INPUTS = {"q": 1.3, "correlation": 0.3}


def network(kind: str) -> ji.Network:
    given = {"weight_variance": 1.5, "bias_variance": 0.1, "input_weight_variance": 0.7, **KINDS[kind]}
    return ji.Network(STEPS, WIDTH, tied=True, **given)  # type: ignore[arg-type]


def misses(run: ji.Propagation, theory: ji.Propagation) -> float:
    """How far apart, in units of the tolerance."""
    far = []
    for name in NAMES:
        found, want = run[name], theory[name].mean
        size = np.ones_like(want) if "correlation" in name else np.abs(want)
        far.append(np.abs(found.mean - want) / (5 * found.stderr + BIAS * STEPS / WIDTH * size + 1e-6))
    return max(float(v.max()) for v in far)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k.startswith("skips") else []) for k in KINDS]
)
def test_wide_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twins: another variance of weights and, with skips, the theory of independent layers."""
    net = network(kind)
    run = ji.simulate(net, SEEDS, record=NAMES, **INPUTS)
    assert run.config["sampler"] == "implicit (gaussian, tied)" and len(run.sites) == STEPS
    assert misses(run, ji.meanfield.propagate(net, **INPUTS)) < 1
    changed = {"input_weight_variance": 0.8} if net.driven else {"weight_variance": 1.65}
    other = ji.meanfield.propagate(dataclasses.replace(net, **changed), **INPUTS)
    assert misses(run, other) > 1
    if net.residual is not None:

        def apart(where: str, activation: object, rule: object, q: float, epsilon: float) -> tuple:
            layers = exact(activation, rule, q, epsilon)  # type: ignore[arg-type]
            return layers, gradients(rule, layers)  # type: ignore[arg-type]

        monkeypatch.setattr(_propagate, "over_time", apart)
        assert misses(run, ji.meanfield.propagate(net, **INPUTS)) > 2
