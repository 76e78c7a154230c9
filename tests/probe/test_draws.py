"""Parameters are drawn by other loops than those of the model's own program: the same bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo_models as zoo

from jaxinit.probe._probe import _build

# As users' programs are compiled: it is their bits that are the same.
pytestmark = pytest.mark.optimized
KEY = jax.random.key(5)


def plain(key: Any) -> Any:
    """Draws of several widths, in a loop and in branches, and three alike."""

    def step(key: Any, _: Any) -> Any:
        key, own = jax.random.split(key)
        return key, jax.random.truncated_normal(own, -2.0, 2.0, (4, 3))

    key, stack = jax.lax.scan(step, key, length=3)
    other = jax.lax.cond(
        jax.random.bernoulli(key),
        lambda k: jax.random.normal(k, (3,)),
        lambda k: jax.random.uniform(k, (3,)),
        key,
    )
    half = jax.random.normal(key, (5,), jnp.bfloat16)
    several = jax.vmap(lambda k: jax.random.laplace(k, (2, 2)))(jax.random.split(key, 3))
    alike = [jax.random.normal(jax.random.fold_in(key, n), (2, 3)) for n in range(3)]
    return {"stack": stack, "other": other, "half": half, "several": several, "alike": alike}


MODELS = {
    "functions": (plain, lambda params, x: x @ params["stack"][0, :3] * params["other"][None]),
    "scan, remat": zoo.CASES["scan, remat"].model,
}


@pytest.mark.parametrize("name", list(MODELS))
def test_parameters_are_those_of_the_model_bit_for_bit(name: str) -> None:
    x = np.ones((2, 3), "f4") if name == "functions" else zoo.CASES[name].x
    args = (jnp.asarray(x),)
    program = _build(
        "probe", MODELS[name], args, None, train=False, method=None, rngs=None, loss=None, backward=True, record=None,
        optimizer=None, sites=None, unformed=None,
    ).program  # fmt: skip
    found, own = jax.jit(program.init)(KEY, args), jax.jit(program.model.init)(KEY, args)
    assert jax.tree.structure(found) == jax.tree.structure(own)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    if name == "functions":
        jax.jit(program.init).trace(KEY, args).lower(lowering_platforms=("cuda", "tpu"))
    text = str(jax.make_jaxpr(program.init)(KEY, args))
    assert "3fryf" in text  # the fused generator
    assert name != "functions" or text.count("random_fold_in") == 1  # those alike in one loop
