"""The part that also runs on the newest JAX and Python: each area once, end to end, small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxinit as ji

pytestmark = pytest.mark.optimized  # as users compile
X = np.random.default_rng(0).normal(size=(8, 16)).astype("f4")


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return x + nn.Dense(16, name="out")(
            nn.relu(nn.Dense(16, kernel_init=ji.normal(0.5), name="in")(x))
        ), None


class Stack(nn.Module):
    """Three blocks by nn.scan, one convolution."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scanned = nn.scan(nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = scanned(name="blocks")(x, None)
        return nn.Conv(2, (3,), name="conv")(x[..., None])


def test_initializers_plug_into_flax() -> None:
    x = jnp.ones((1, 8))
    dense = nn.Dense(16, kernel_init=ji.he_normal(), bias_init=ji.zeros())
    params = dense.init(jax.random.key(0), x)["params"]
    assert params["kernel"].shape == (8, 16) and not params["bias"].any()
    layer = nnx.Linear(8, 16, kernel_init=ji.orthogonal(), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(layer.kernel[...] @ layer.kernel[...].T, np.eye(8), atol=1e-5)


def test_draws_are_those_of_jax() -> None:
    key = jax.random.key(7)
    for name in ("he_normal", "he_uniform", "glorot_normal", "lecun_uniform"):
        ours = getattr(ji, name)()(key, (64, 32), jnp.float32)
        theirs = getattr(jax.nn.initializers, name)()(key, (64, 32), jnp.float32)
        assert (ours == theirs).all(), name


def test_simulate_shows_what_he_et_al_show() -> None:
    he, xavier = (
        ji.simulate(ji.Network(20, 128, "relu", weight_variance=v), seeds=16).log_second_moment.mean[-1, 0]
        for v in (2.0, 1.0)
    )
    np.testing.assert_allclose((he - xavier) / 20, np.log(2), rtol=1e-5)


def test_simulate_any_initializer() -> None:
    run = ji.simulate(ji.Network(3, 32, "tanh", initializer=ji.glorot_uniform()), seeds=4)
    assert run.config["sampler"].startswith("materialized") and run.second_moment.shape == (3, 2)


def test_records_are_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    run = ji.simulate(ji.Network(3, 32, "gelu", weight_variance=2.0), seeds=4)
    again = ji.load(run.save(tmp_path / "run.npz"))
    assert (again.second_moment.mean == run.second_moment.mean).all() and again.provenance == run.provenance


def test_theory() -> None:
    point = ji.meanfield.fixed_point("tanh", 1.5, 0.05)
    assert abs(ji.meanfield.length_map("tanh", point.q, 1.5, 0.05) - point.q) < 1e-10
    kernel_init, _ = ji.critical("tanh", 0.05)
    np.testing.assert_allclose(kernel_init.scale, 1.76095, rtol=1e-5)
    np.testing.assert_allclose(ji.gain("relu"), np.sqrt(2), rtol=1e-12)


def test_compare_trains() -> None:
    result = ji.compare(
        ji.MLP(depth=2, width=16, features=10), ["he", "zeros"], "digits", "momentum",
        seeds=1, learning_rates=[0.03], steps=40,
    )  # fmt: skip
    assert result.final("test_accuracy")[0].mean() > 0.5 > result.final("test_accuracy")[1].mean()


def test_reinit() -> None:
    params = nn.Dense(4).init(jax.random.key(0), jnp.ones((1, 3)))
    new = ji.reinit(params, {"**/kernel": ji.zeros()}, jax.random.key(1))
    assert not new["params"]["kernel"].any()


def test_probe_and_diagnose() -> None:
    found = ji.probe(Stack(), X[:2], seeds=32)
    assert found.sites.count("blocks[1]/in") == 1, found.sites
    unformed = ji.probe(Stack(), X[:2], seeds=32, weights="implicit", approximate=True)
    assert unformed.config["parameters"]["blocks/in/kernel"] == "implicit (gaussian)"
    one, other = found.log_second_moment, unformed.log_second_moment
    error = 5 * np.hypot(one.stderr, other.stderr)
    assert (abs(one.mean - other.mean) < error).all()
    # The first product's kernel, were it half as large again, would be told apart.
    assert (abs(one.mean + 2 * np.log(1.5) - other.mean) > error)[0].all()
    assert ji.diagnose(found) is not None


def test_adapt() -> None:
    key = jax.random.key(0)
    for method in ("lsuv", "analytic"):
        params, record = ji.calibrate(Stack(), X, key, method=method)
        assert record.ok and jax.tree.structure(params) == jax.tree.structure(Stack().init(key, X)["params"])
    assert "kernel_init" in str(ji.suggest(Stack(), X))
