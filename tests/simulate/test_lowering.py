"""Programs of every kind of network lower for accelerators; dense and convolutional ones in their own tests."""

import jax
import pytest

import jaxinit as ji
from jaxinit.records import STATISTICS
from jaxinit.simulate import _simulate
from jaxinit.simulate._driven import Driven
from jaxinit.simulate._precision import Precision

TIED = {"activation": "tanh", "weight_variance": 1.5, "tied": True}
KINDS = {
    "driven": {**TIED, "bias_variance": 0.1, "input_width": 5, "input_weight_variance": 1.0},
    "tied, orthogonal": {**TIED, "ensemble": "orthogonal"},
    "skips, norm, dropout, float16": {
        "activation": "gelu", "weight_variance": 1.5, "norm": "layer", "dropout": 0.1,
        "residual": ji.Residual(0.8, 0.6, order="post"), "dtype": "float16",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_lowers_for_accelerators(kind: str) -> None:
    given = dict(KINDS[kind])
    precision = Precision.of("simulate", given.pop("dtype", None))
    net = ji.Network(3, 32, **given)  # type: ignore[arg-type]
    weights = tuple(_simulate._weights(net, s, "implicit", False, 2, precision) for s in net.shapes)
    driven = Driven.of(net, "implicit", 2, precision)
    wanted = _simulate._wanted([*STATISTICS], True, 2)
    program = _simulate._program(net, weights, wanted, precision, driven)
    data = (net, _simulate._inputs(net, 1.0, 0.5, None))
    traced = jax.jit(program).trace(jax.random.key(0, impl="threefry2x32"), data)
    assert traced.lower(lowering_platforms=("cuda", "tpu"))
