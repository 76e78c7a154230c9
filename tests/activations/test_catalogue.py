"""The catalogue: every record is callable on any dtype and shape, differentiable, and has value semantics."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit.activations import Activation, get, names

ALL = names()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_keeps_dtype_and_shape_under_transforms(name, dtype):
    phi = get(name)
    x = jnp.linspace(-2.3, 2.7, 12, dtype=jnp.float32).astype(dtype).reshape(3, 4)
    y = phi(x)
    assert y.shape == x.shape and y.dtype == x.dtype
    if dtype == "float32":
        for other in (jax.jit(phi)(x), jax.vmap(phi)(x)):
            np.testing.assert_allclose(np.asarray(other), np.asarray(y), atol=1e-6)
    assert phi.derivative(x).dtype == x.dtype
    assert phi(jnp.zeros((0, 3), dtype)).shape == (0, 3)


@pytest.mark.parametrize("name", ALL)
def test_float64_and_derivative_against_differences(name):
    phi = get(name)
    with jax.enable_x64(True):
        x = jnp.asarray([-3.7, -1.3, -0.41, 0.37, 0.9, 1.7, 4.1], dtype=jnp.float64)
        h = 1e-5
        value, slope = phi.value_and_derivative(x)
        assert value.dtype == jnp.float64
        differences = (phi(x + h) - phi(x - h)) / (2 * h)
        np.testing.assert_allclose(np.asarray(slope), np.asarray(differences), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_value_semantics(name):
    phi = get(name)
    assert phi == get(name) and hash(phi) == hash(get(name))
    assert pickle.loads(pickle.dumps(phi)) == phi
    assert eval(repr(phi), {"get": get}) == phi
    assert jax.tree.leaves(phi) == []
    assert get(phi) is phi


def test_parameters_make_other_records():
    a, b = get("leaky_relu"), get("leaky_relu", negative_slope=0.2)
    assert a != b and get("leaky_relu", negative_slope=0.01) == a
    assert pickle.loads(pickle.dumps(b)) == b and eval(repr(b), {"get": get}) == b
    np.testing.assert_allclose(float(b(-2.0)), -0.4, rtol=1e-6)
    np.testing.assert_allclose(float(get("prelu")(-2.0)), -0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("Swish", "silu"),
        ("linear", "identity"),
        ("hard-swish", "hard_silu"),
        (jax.nn.relu, "relu"),
        (jnp.tanh, "tanh"),
        (jax.nn.gelu, "gelu_tanh"),
        (functools.partial(jax.nn.gelu, approximate=False), "gelu"),
        (jax.nn.swish, "silu"),
        (jax.lax.erf, "erf"),
    ],
)
def test_other_ways_to_say_it(spec, name):
    assert get(spec) == get(name)


def test_partial_of_a_catalogued_function():
    assert get(functools.partial(jax.nn.leaky_relu, negative_slope=0.3)) == get(
        "leaky_relu", negative_slope=0.3
    )


def test_any_callable():
    def bent(x, slope=0.5):
        return jnp.where(x < 0.25, slope * x, x)

    phi = get(bent)
    assert isinstance(phi, Activation) and phi.name == "bent" and get(bent) == phi
    assert get(bent, slope=0.1) != phi
    np.testing.assert_allclose(float(get(bent, slope=0.1)(-1.0)), -0.1, rtol=1e-6)
    assert get(lambda x: x) != get(lambda x: x)


def test_refusals_say_what_to_do():
    with pytest.raises(ValueError, match="Did you mean 'gelu'"):
        get("gelo")
    with pytest.raises(ValueError, match="relu takes nothing"):
        get("relu", negative_slope=0.1)
    with pytest.raises(TypeError, match="a name, a JAX callable or an Activation"):
        get(3)
    with pytest.raises(ValueError, match="finite number"):
        get("leaky_relu", negative_slope=float("nan"))
    with pytest.raises(ValueError, match="does not take it"):
        get(lambda x: x, alpha=1.0)
    with pytest.raises(TypeError, match=r"must be an elementwise.*it raised TypeError: .*0 positional"):
        get(lambda: 0.0)
    with pytest.raises(TypeError, match="must be an elementwise.*returned int32"):
        get(lambda x: jnp.sign(x).astype(int))
    with pytest.raises(TypeError, match="a name, a JAX callable"):
        get(float)
