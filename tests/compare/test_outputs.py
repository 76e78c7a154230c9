"""The outputs of layers, read off the traced program: those that Flax itself captures, for every kind of model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxinit.compare._outputs import kernel_outputs
from jaxinit.compare._signals import _kernels, _site
from jaxinit.models import adapt, from_functions

X = jax.random.normal(jax.random.key(1), (3, 6, 6, 2))


def outputs(model, x=X):
    """Parameters, and the outputs of their layers, in one program."""
    model = adapt(model)

    def apply(params, x, state):
        return model.apply(params, state, x, False, None)[0]

    @jax.jit
    def both(key, x):
        params, state = model.init(None, key, x)
        sites = {path: _site(path) for path, _ in _kernels(params)}
        return params, kernel_outputs(apply, params, sites.get, x, state)

    return both(jax.random.key(0), x)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3), use_bias=False)(x))
        x = nn.remat(nn.Dense)(5, name="again", bias_init=nn.initializers.normal(1.0))(x.reshape(3, 36, 4))
        x = x + nn.MultiHeadDotProductAttention(num_heads=1, qkv_features=4)(x)
        return nn.Dense(3, bias_init=nn.initializers.normal(1.0))(x.mean(axis=1)) + 1.0


def test_linen_as_flax_captures_it():
    module = Net()
    _, got = outputs(module)
    mutable = ["params", "batch_stats", "intermediates"]
    draw = jax.jit(lambda key: module.init(key, X, capture_intermediates=True, mutable=mutable))
    seen = draw(jax.random.key(0))
    names = {"Conv_0", "again", "Dense_0"}
    heads = {f"MultiHeadDotProductAttention_0/{n}" for n in ("query", "key", "value", "out")}
    assert got.keys() == names | heads
    for name in got:
        place = seen["intermediates"]
        for part in name.split("/"):
            place = place[part]
        np.testing.assert_allclose(got[name], place["__call__"][0], rtol=1e-5, atol=1e-6, err_msg=name)


def test_nnx_and_plain_functions():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = nnx.Linear(72, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)
            self.a.bias.set_value(jnp.arange(5.0))

        def __call__(self, x):
            return self.b(nnx.relu(self.a(x.reshape(3, -1))))

    params, got = outputs(Two)
    params = jax.tree.map(np.asarray, params)
    z = np.asarray(X).reshape(3, -1) @ params["a"]["kernel"] + params["a"]["bias"]
    np.testing.assert_allclose(got["a"], z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["b"], np.maximum(z, 0) @ params["b"]["kernel"], rtol=1e-5, atol=1e-6)

    def init(initializer, key, x):
        return {"w": jax.random.normal(key, (5, 72)), "v": jnp.ones((5, 5)), "b": jnp.arange(5.0)}

    @jax.jit
    def apply(p, x):
        w = p["w"] / jnp.linalg.norm(p["w"], axis=1, keepdims=True)
        return jax.nn.softmax((x.reshape(3, -1) @ w.T + p["b"][None]) @ p["v"])

    params, got = outputs(from_functions(init, apply))
    params = jax.tree.map(np.asarray, params)
    w = params["w"] / np.linalg.norm(params["w"], axis=1, keepdims=True)
    z = np.asarray(X).reshape(3, -1) @ w.T + params["b"]
    np.testing.assert_allclose(got["w"], z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["v"], z @ params["v"], rtol=1e-5, atol=1e-5)


def test_what_is_no_layer_has_no_output():
    """A shortcut is no bias, a product of two kernels is none of either, and a loop is out of sight."""

    def init(initializer, key, x):
        return {"w": jnp.eye(4), "v": 2.0 * jnp.eye(4), "u": jnp.ones((3, 4, 4))}

    def apply(p, x):
        z = x @ p["w"] + x
        y, _ = jax.lax.scan(lambda c, u: (c @ u, None), z @ (p["v"] @ p["w"]), p["u"])
        return y

    x = jnp.arange(8.0).reshape(2, 4)
    _, got = outputs(from_functions(init, apply), x)
    assert got.keys() == {"w"}
    np.testing.assert_array_equal(got["w"], x)
