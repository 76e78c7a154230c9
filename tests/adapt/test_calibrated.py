"""Calibration as an arm of `compare`: drawn and calibrated for every seed."""

import jax
import numpy as np
import pytest

from jaxinit.adapt import Calibrated, calibratable, calibrated
from jaxinit.compare import compare
from jaxinit.models import MLP

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(96, 6)).astype("f4"), RNG.integers(0, 3, 96)
MODEL = MLP(depth=3, width=8, features=3, activation="tanh")


def moments(params) -> list[float]:
    h, out = X[:32].astype(np.float64), []
    for n in range(3):
        z = (np.tanh(h) if n else h) @ np.asarray(params[f"layer_{n + 1}"]["kernel"], np.float64)
        out.append(float(np.mean(z**2)))
        h = z
    return out


@pytest.fixture(scope="module")
def model():
    return calibratable(MODEL, X[:32])


def test_every_seed_is_calibrated_and_shapes_need_no_data(model) -> None:
    draws = [model.init(calibrated(), jax.random.key(seed), X[:1])[0] for seed in (1, 2)]
    for params in draws:
        np.testing.assert_allclose(moments(params), 1, atol=0.02)
    kernels = [params["layer_1"]["kernel"] for params in draws]
    assert not np.allclose(kernels[0], kernels[1])
    plain = model.init(None, jax.random.key(1), X[:1])[0]
    assert max(abs(m - 1) for m in moments(plain)) > 0.1  # twin: the model's own
    ratio = kernels[0] / plain["layer_1"]["kernel"]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)  # the same draw, scaled
    shapes = jax.eval_shape(lambda key: model.init(calibrated(), key, X[:1])[0], jax.random.key(0))
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, plain)


def test_beside_other_initializers(model) -> None:
    arms = {"zeros": "zeros", "lsuv": calibrated(draw="zeros"), "he": calibrated(draw="he")}
    record = compare(model, arms, (X, Y), seeds=1, learning_rates=[0.01], steps=2, batch_size=16)
    assert record.initializers == ("zeros", "lsuv", "he")
    first = record.train_loss[:, 0, 0, 0]
    assert first[0] == first[1] != first[2]  # zeros stay zeros, whatever their scale


def test_its_name_and_what_it_refuses() -> None:
    arm = calibrated("critical", draw="he", target="update_ratio")
    assert repr(arm) == "calibrated('critical', draw=he_normal(), target='update_ratio')"
    assert arm == calibrated("critical", target="update_ratio", draw="he") and isinstance(arm, Calibrated)
    assert hash(arm) == hash(calibrated("critical", target="update_ratio", draw="he"))
    with pytest.raises(ValueError, match="lsuv"):
        calibrated("lsuw")
    with pytest.raises(ValueError, match="he_normal|names|nearest|got"):
        calibrated(draw="hee")
