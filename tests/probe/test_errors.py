"""Bad input: one clear error each, before anything is compiled, with the call that would work."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zoo_models as zoo
from flax import nnx

from jaxinit.probe import probe, watch

TWO, X = zoo.Two(), zoo.X
PLAIN = (zoo.init_functions, zoo.apply_functions)


class Bare(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.relu(x)


class Counting(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        nn.Dense(2)(x)
        return jnp.argmax(x, axis=-1)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a class": ({"model": zoo.Two}, TypeError, r"Make one: Two\(\.\.\.\)"),
    "an nnx class that needs more": ({"model": nnx.Linear}, TypeError, r"lambda rngs: Linear\(\.\.\., rngs=rngs\)"),
    "no model": ({"model": 3}, TypeError, "Pass a linen module"),
    "more seeds than one draw": ({"model": zoo.Pair(nnx.Rngs(0)), "seeds": 2}, ValueError, "pass a factory"),
    "a factory of something else": ({"model": lambda rngs: 3}, TypeError, "rngs -> nnx.Module"),
    "no parameters": ({"model": Bare()}, ValueError, "model with parameters"),
    "no floating output": ({"model": Counting()}, ValueError, "floating output"),
    "inputs of another shape": ({"model": zoo.ConvNet()}, ValueError, r"called with, got 'float32\[3,6\]'"),
    "no batch": ({"x": []}, ValueError, "at least one"),
    "text": ({"x": "images"}, TypeError, "made of arrays"),
    "nan": ({"x": np.full((2, 6), np.nan, "f4")}, ValueError, "finite"),
    "integer shapes": ({"x": jax.ShapeDtypeStruct((2, 6), jnp.int32)}, ValueError, "real tokens"),
    "batches that differ": ({"x": [X, X[:2]]}, ValueError, "same shapes"),
    "labels without a loss": ({"labels": np.zeros(3)}, ValueError, "Pass loss="),
    "a loss without labels": ({"loss": lambda out, labels: 0.0}, ValueError, r"loss=loss, labels=labels"),
    "a loss that is no scalar": ({"loss": lambda out: out}, ValueError, r"real scalar, got 'float32\[3,4\]'"),
    "a loss that fails": ({"loss": lambda out: out["y"]}, ValueError, "It failed with"),
    "a loss that is no function": ({"loss": "mse"}, TypeError, "function of the output"),
    "labels of too few batches": ({"x": [X, X], "labels": [X], "loss": lambda o, l: 0.0}, ValueError, "list of 2"),
    "no optimizer": ({"optimizer": "adam"}, TypeError, r"optax\.adam"),
    "an optimizer without gradients": ({"optimizer": optax.sgd(1.0), "backward": False}, ValueError, "backward=False"),
    "sites that match nothing": ({"sites": "encoder/*"}, ValueError, "Known names|Did you mean"),
    "sites of no kind": ({"sites": 3}, TypeError, "glob pattern"),
    "an unknown statistic": ({"record": ["second_momentum"]}, ValueError, "Did you mean 'second_moment'"),
    "a gradient without one": ({"record": ["grad_correlation"], "backward": False}, ValueError, "forward"),
    "a pair of one": ({"record": ["correlation"], "x": X[:1]}, ValueError, "one example"),
    "unknown weights": ({"weights": "formed"}, ValueError, "'materialized'"),
    "seeds twice": ({"seeds": [1, 1]}, ValueError, "distinct"),
    "no chunk": ({"chunk": 0}, ValueError, "at least 1"),
    "streams that are no keys": ({"rngs": {"dropout": 3}}, TypeError, "jax.random.key"),
    "streams for nnx": ({"model": zoo.Pair, "rngs": {"dropout": jax.random.key(0)}}, ValueError, "follow from"),
    "a method of functions": (
        {"model": PLAIN, "method": "encode"}, ValueError, "plain functions",
    ),
    "a method that is not there": ({"method": "encode"}, ValueError, "encode"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import jaxinit.ensemble

    def compiled(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it got as far as compiling")

    monkeypatch.setattr(jaxinit.ensemble, "run", compiled)
    given, error, text = BAD[name]
    arguments = {"model": TWO, "x": X, "seeds": 1} | given
    with pytest.raises(error, match=text):
        probe(arguments.pop("model"), arguments.pop("x"), **arguments)


def test_watch_refuses_other_shapes() -> None:
    params = jax.eval_shape(TWO.init, jax.random.key(0), X)["params"]
    look = watch(TWO, params, X)
    with pytest.raises(ValueError, match=r"float32\[3,6\], got 'float32\[2,6\]'"):
        look(params, X[:2])
    with pytest.raises(ValueError, match="at least once"):
        look.record([])


class Talkative(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        jax.debug.callback(lambda: None)
        return nn.Dense(2)(x)


def constant(rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(6, 4, rngs=nnx.Rngs(0))


def test_a_model_that_calls_the_host_is_named() -> None:
    with pytest.warns(UserWarning, match="Talkative calls the host .*callback"):
        probe(Talkative(), X, seeds=1, record=["second_moment"], backward=False, devices=1)


def test_a_factory_that_ignores_its_rngs_is_named() -> None:
    with pytest.warns(UserWarning, match="same signal for every seed"):
        probe(constant, X, seeds=2, record=["second_moment"], backward=False, devices=1)
