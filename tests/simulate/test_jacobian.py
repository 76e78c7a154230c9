"""simulate(jacobian=...): the Jacobian of the very networks whose statistics are recorded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit as ji
from jaxinit import ensemble
from jaxinit._core.normals import vector
from jaxinit.simulate._jacobian import Jacobian
from jaxinit.simulate._signal import Nonlinearity
from jaxinit.simulate._simulate import _inputs, _weights
from jaxinit.simulate._tied import Tied
from jaxinit.simulate._weights import LayerKeys

FAST = {"backward": False, "record": ["second_moment"]}


def by_autodiff(network: ji.Network, x: np.ndarray, seed: int, root: int) -> np.ndarray:
    """Singular values from jax.jacobian of a plain float64 network with the same draws."""
    each_layer = [_weights(network, shape, "materialized", False, 1) for shape in network.shapes]
    weights = [w.weights if isinstance(w, Tied) else w for w in each_layer]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        key = ensemble.keys_of(np.asarray([seed], np.uint32), root)[0]
        keys = LayerKeys.of(jax.random.split(key, (network.depth + 1, 4))[1:], network.tied)
        each = [jax.tree.map(lambda k, l=l: k[l], keys) for l in range(network.depth)]

        def f(h: jax.Array) -> jax.Array:
            for l, (layer, w) in enumerate(zip(each, weights, strict=True)):
                h = h if l == 0 else network.activation(h)
                bias = vector(layer.bias, w.shape[1])
                first = each[0] if network.tied else layer
                h = h @ w.draw(first.forward, network) + bias * np.sqrt(network.bias_variance)
            return h

        return np.linalg.svd(np.asarray(jax.jacobian(f)(jnp.asarray(x, jnp.float64))), compute_uv=False)


@pytest.mark.parametrize(
    "network",
    [
        ji.Network(4, 12, "tanh", weight_variance=1.7, bias_variance=0.1),
        ji.Network(3, [9, 9, 6], "relu", weight_variance=2.0, input_width=8),
        ji.Network(2, 10, "gelu", weight_variance=1.5, bias_variance=0.2, ensemble="orthogonal"),
        ji.Network(2, 8, "tanh", initializer="glorot_uniform"),
        ji.Network(5, 8, "tanh", weight_variance=1.5, bias_variance=0.1, tied=True),
    ],
    ids=lambda n: n.label,
)
def test_it_is_the_jacobian(network: ji.Network) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, network.input_width)).astype(np.float32)
    run = ji.simulate(network, [5, 0], x=x, root=7, jacobian=True, **FAST)
    found = run.extra["jacobian_singular_values"]
    assert found.shape == (2, min(network.input_width, network.widths[-1])) and found.dtype == np.float64
    assert (np.diff(found, axis=1) <= 0).all()
    for row, seed in zip(found, (5, 0), strict=True):
        np.testing.assert_allclose(row, by_autodiff(network, x[0], seed, 7), rtol=1e-5, atol=1e-6 * row[0])
    np.testing.assert_allclose(np.exp(run.extra["jacobian_log_singular_values"]), found)
    assert run.config["sampler"].startswith("materialized")
    some = ji.simulate(network, [5, 0], x=x, root=7, jacobian=4, **FAST)
    np.testing.assert_array_equal(some.extra["jacobian_singular_values"], found[:, :4])
    assert ji.simulate(network, [5, 0], x=x, root=7, **FAST, sampler="materialized").extra == {}


def test_twin_another_seed_is_seen() -> None:
    network = ji.Network(4, 12, "tanh", weight_variance=1.7)
    x = np.ones((1, 12), np.float32)
    found = ji.simulate(network, [5], x=x, jacobian=True, **FAST).extra["jacobian_singular_values"][0]
    assert np.abs(found / by_autodiff(network, x[0], 6, 0) - 1).max() > 0.05


def test_far_beyond_floats() -> None:
    """Orthogonal and linear: every singular value is sigma_w^L."""
    network = ji.Network(4000, 8, "identity", weight_variance=0.25, ensemble="orthogonal")
    extra = ji.simulate(network, 1, jacobian=True, **FAST).extra
    np.testing.assert_allclose(extra["jacobian_log_singular_values"], 4000 * np.log(0.5), rtol=1e-6)
    assert (extra["jacobian_singular_values"] == 0).all()


@pytest.mark.parametrize(
    ("error", "text", "options", "width"),
    [
        (ValueError, "at most 16", {"jacobian": 17}, 16),
        (TypeError, "jacobian", {"jacobian": 2.5}, 16),
        (ValueError, "at least 1", {"jacobian": 0}, 16),
        (ValueError, "sampler='implicit'", {"jacobian": True, "sampler": "implicit"}, 16),
        (ValueError, "GiB", {"jacobian": True}, 6000),
    ],
)
def test_refusals(error, text, options, width) -> None:
    with pytest.raises(error, match=text):
        ji.simulate(ji.Network(2, width, "tanh", weight_variance=1.0), 2, **options)


def test_refuses_skips() -> None:
    from jaxinit.network import Residual

    network = ji.Network(3, 8, "tanh", weight_variance=1.0, residual=Residual(beta=0.5))
    with pytest.raises(ValueError, match="skips"):
        ji.simulate(network, 2, jacobian=True)


def test_lowers_for_accelerators() -> None:
    network = ji.Network(3, 8, "tanh", weight_variance=1.0, bias_variance=0.1, ensemble="orthogonal")
    weights = tuple(_weights(network, shape, "materialized", False, 2) for shape in network.shapes)
    program = Jacobian(weights, Nonlinearity.of(network.activation), True)
    with jax.enable_x64(True):
        key = ensemble.keys_of(np.asarray([0], np.uint32), 0)[0]
        data = (network, _inputs(network, 1.0, 0.5, None))
        jax.jit(program).trace(key, data).lower(lowering_platforms=("cuda", "tpu"))
