"""Signals along training against the same figures taken by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinit.compare import compare, load_data
from jaxinit.compare._signals import sites_of
from jaxinit.models import MLP

RNG = np.random.default_rng(2)
X = RNG.normal(size=(200, 5))
Y = (X[:, 0] > 0).astype(int)
DATA = load_data((X, Y))
MODEL = MLP(depth=4, width=6, features=2, kernel_init=jax.nn.initializers.he_normal())


@pytest.mark.parametrize("batching", ["sequential", pytest.param("vmap", marks=pytest.mark.slow)])
def test_signals_before_the_first_step(batching):
    record = compare(MODEL, ["he", "zeros"], DATA, "sgd", seeds=2, learning_rates=[0.1], steps=4, batch_size=10,
                     evaluate_every=2, signals=True, batching=batching)  # fmt: skip
    assert record.sites == tuple(f"layer_{n}" for n in range(1, 5))
    assert record.signals["grad_rms"].shape == (2, 1, 2, 3, 4)
    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 1)
    params = MODEL.init(jax.random.fold_in(key, 0), DATA.x_train[:1])["params"]
    x, y = DATA.x_validation[:128], jnp.asarray(DATA.y_validation[:128])

    def loss(p):
        return optax.softmax_cross_entropy_with_integer_labels(MODEL.apply({"params": p}, x), y).mean()

    gradient = jax.grad(loss)(params)
    a = x
    for n in range(4):
        layer = params[f"layer_{n + 1}"]
        z = a @ layer["kernel"]
        g = np.asarray(gradient[f"layer_{n + 1}"]["kernel"])
        got = {name: record.signals[name][0, 0, 1, 0, n] for name in record.signals}
        assert got["second_moment"] == pytest.approx(float(np.square(z).mean()), rel=1e-4)
        assert got["silent_fraction"] == pytest.approx(float((z <= 0).all(axis=0).mean()))
        assert got["grad_rms"] == pytest.approx(float(np.sqrt(np.square(g).mean())), rel=1e-3, abs=1e-9)
        ratio = 0.1 * np.linalg.norm(g) / np.linalg.norm(layer["kernel"])
        assert got["update_ratio"] == pytest.approx(float(ratio), rel=1e-3, abs=1e-9)
        a = np.maximum(z, 0)
    # zeros: every unit is silent, and stays so; nothing but the last bias ever moves
    assert (record.signals["silent_fraction"][1, ..., :-1] == 1).all()
    assert (record.signals["grad_rms"][1] == 0).all() and (record.signals["weight_rms"][1] == 0).all()


def test_sites_are_in_natural_order():
    tree = {f"layer_{n}": {"kernel": np.ones((2, 2)), "bias": np.ones(2)} for n in (10, 2, 1)}
    assert sites_of(tree) == ("layer_1", "layer_2", "layer_10")
    assert sites_of({"b": np.ones(3), "w": [np.ones((3, 3)), np.ones((3, 1))]}) == ("w/0", "w/1")


def test_signals_do_not_disturb_the_run():
    options = {"seeds": 1, "learning_rates": [0.1], "steps": 4, "batch_size": 10}
    model = MLP(depth=2, width=6, features=2)
    seen = compare(model, ["he"], DATA, "adam", signals=True, **options)
    plain = compare(model, ["he"], DATA, "adam", **options)
    np.testing.assert_array_equal(seen.train_loss, plain.train_loss)
    assert plain.signals == {} and plain.sites == ()
    assert seen["update_ratio"].shape == (1, 1, 1, 5, 2)
