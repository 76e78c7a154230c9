"""The first set: same bits as JAX, one rounding, value semantics, calls as Flax makes them."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxinit.initializers as ji

pytestmark = pytest.mark.optimized  # bits are promised


KEY = jax.random.key(3)
SHAPE = (96, 40)
JAX = jax.nn.initializers

TWINS = [
    (ji.zeros(), JAX.zeros),
    (ji.ones(), JAX.ones),
    (ji.constant(0.1), JAX.constant(0.1)),
    (ji.normal(0.037), JAX.normal(0.037)),
    (ji.uniform(0, 0.37), JAX.uniform(0.37)),
    (ji.truncated_normal(0.3), JAX.truncated_normal(0.3)),
    (ji.truncated_normal(0.3, -1, 3), JAX.truncated_normal(0.3, lower=-1.0, upper=3.0)),
    (ji.variance_scaling(1.3, "fan_geo_avg", "normal"), JAX.variance_scaling(1.3, "fan_geo_avg", "normal")),
    (ji.variance_scaling(0.7, "fan_avg"), JAX.variance_scaling(0.7, "fan_avg", "truncated_normal")),
    (
        ji.variance_scaling(1.0, "fan_in", "normal", out_axis=0),
        JAX.variance_scaling(1.0, "fan_in", "normal", out_axis=0),
    ),
    (ji.he_normal(), JAX.he_normal()),
    (ji.he_uniform(), JAX.he_uniform()),
    (ji.glorot_normal(), JAX.glorot_normal()),
    (ji.glorot_uniform(), JAX.glorot_uniform()),
    (ji.lecun_normal(), JAX.lecun_normal()),
    (ji.lecun_uniform(), JAX.lecun_uniform()),
    (ji.orthogonal(1.3), JAX.orthogonal(1.3)),
]
IDS = [repr(a) for a, _ in TWINS]


@pytest.mark.parametrize(("ours", "theirs"), TWINS, ids=IDS)
def test_float32_draws_are_those_of_jax(ours, theirs):
    assert np.array_equal(ours(KEY, SHAPE, jnp.float32), theirs(KEY, SHAPE, jnp.float32))
    assert np.array_equal(ours(jax.random.PRNGKey(3), SHAPE, jnp.float32), ours(KEY, SHAPE, jnp.float32))


@pytest.mark.parametrize("ours", [a for a, _ in TWINS], ids=IDS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bf16", "fp16"])
def test_half_precision_is_float32_rounded_once(ours, dtype):
    expected = np.asarray(ours(KEY, SHAPE, jnp.float32)).astype(dtype)
    assert np.array_equal(np.asarray(ours(KEY, SHAPE, dtype)), expected)


@pytest.mark.parametrize("ours", [a for a, _ in TWINS], ids=IDS)
def test_value_semantics(ours):
    for again in (
        eval(repr(ours), vars(ji)),
        pickle.loads(pickle.dumps(ours)),
        ji.from_config(ours.to_config()),
        jax.tree.map(lambda x: x, ours),
    ):
        assert again == ours and hash(again) == hash(ours) and repr(again) == repr(ours)


def test_flax_layers_take_them():
    x = jnp.ones((2, 8, 8, 3))
    conv = nn.Conv(5, (3, 3), kernel_init=ji.he_normal(), bias_init=ji.normal(0.1))
    kernel = conv.init(KEY, x)["params"]["kernel"]
    assert abs(float(jnp.std(kernel)) / (2 / 27) ** 0.5 - 1) < 0.3
    assert nn.Dense(4, kernel_init=ji.orthogonal()).init(KEY, jnp.ones((1, 9)))["params"]["kernel"].shape == (
        9,
        4,
    )
    rngs = nnx.Rngs(0)
    assert nnx.Linear(4, 5, kernel_init=ji.glorot_uniform(), rngs=rngs).kernel[...].shape == (4, 5)
    assert nnx.Conv(4, 5, (3,), kernel_init=ji.lecun_uniform(), rngs=rngs).kernel[...].shape == (3, 4, 5)


def test_names():
    assert ji.get("he") == ji.get("KaimingNormal") == ji.he_normal()
    assert ji.get("random") == ji.normal(1e-2)
    assert all(callable(ji.get(name)) for name in ji.names())
    with pytest.raises(ValueError, match="'he_normal'"):
        ji.get("he_norml")
