"""Bad input: one clear error each, before anything is compiled, with the call that would work."""

import contextlib
import gc
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zoo_models as zoo
from flax import nnx

from jaxinit.adapt import calibrate
from jaxinit.probe import probe, watch

TWO, X = zoo.Two(), zoo.X
GOOD = {
    "a": {"kernel": np.ones((6, 6)), "bias": np.ones(6)},
    "b": {"kernel": np.ones((6, 4)), "bias": np.ones(4)},
}
OTHER = {
    "a": {"kernel": np.ones((6, 5)), "bias": np.ones(6)},
    "b": {"kernel": np.ones((5, 4)), "bias": np.ones(4)},
}
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


class Late(nnx.Module):
    """Its parameters are made in the first call: by itself, or by a part that comes from linen."""

    def __init__(self, rngs: nnx.Rngs, linen: bool) -> None:
        self.rngs = rngs
        self.first = nnx.bridge.ToNNX(nn.Dense(4), rngs=rngs) if linen else nnx.data(None)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        if self.first is None:
            self.first = nnx.Linear(6, 4, rngs=self.rngs)
        return self.out(self.first(x))


def chosen(out: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(out), labels[:, None], axis=1).mean()


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
    "no example": ({"x": X[:0]}, ValueError, "at least one example"),
    "one example": ({"x": X[0]}, ValueError, r"cannot be called with 12 of them.*x\[None\]"),
    "numbers": ({"x": [[1.0, 2.0]]}, ValueError, r"np\.asarray\(x\) is one"),
    "objects": ({"x": np.array([None])}, TypeError, "arrays of numbers"),
    "an axis of several devices": (
        {"model": nn.Sequential([nn.Dense(2), nn.BatchNorm(False, axis_name="data")])}, ValueError, "axis_name",
    ),
    "parameters that a call makes": (
        {"model": lambda rngs: Late(rngs, False)}, ValueError, r"makes first/bias, first/kernel.*lazy_init\(",
    ),
    "parameters that a call of linen makes": ({"model": lambda rngs: Late(rngs, True)}, ValueError, r"lazy_init\("),
    "a class beyond the outputs": (
        {"loss": chosen, "labels": np.array([0, 1, 4])}, ValueError, r"from 0 to 4.*below its number of classes",
    ),
    "batches that differ": ({"x": [X, X[:2]]}, ValueError, "same shapes"),
    "labels without a loss": ({"labels": np.zeros(3)}, ValueError, "Pass loss="),
    "a loss without labels": ({"loss": lambda out, labels: 0.0}, ValueError, r"loss=loss, labels=labels"),
    "a loss that is no scalar": ({"loss": lambda out: out}, ValueError, r"real scalar, got 'float32\[3,4\]'"),
    "a loss that fails": ({"loss": lambda out: out["y"]}, ValueError, "It failed with"),
    "a loss that is no function": ({"loss": "mse"}, TypeError, "function of the output.*lambda out, y: optax"),
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
    "parameters that are no tree": ({"params": 3.5}, TypeError, "a tree of arrays, or the path"),
    "parameters of another model": ({"params": {"a": {"kernel": np.ones((6, 6))}}}, ValueError, "b/kernel is missing"),
    "parameters of another shape": (
        {"params": OTHER}, ValueError, r"a/kernel is \(6, 5\) and should be \(6, 6\); b/kernel is \(5, 4\)",
    ),
    "a parameter too many": ({"params": {**GOOD, "c": np.ones(2)}}, ValueError, "c is not the model's"),
    "no batch statistics": (
        {"model": zoo.ConvNet(), "x": zoo.IMAGES, "params": {"params": {}, "x": np.ones(1)}}, ValueError, "batch_stats",
    ),
    "several seeds of one draw": ({"params": GOOD, "seeds": 2}, ValueError, "leave params out"),
    "a folder that is not there": ({"params": "no/such/folder"}, ValueError, "There is no such folder"),
    "a folder of something else": ({"params": Path(__file__).parent}, ValueError, "No _METADATA is in it"),
    "a method that is not there": ({"method": "encode"}, ValueError, r"method=.*the name of a method of Two"),
    "a method of nnx that is not there": (
        {"model": zoo.Pair, "method": "encode"}, ValueError, r"method=.*the name of a method of Pair",
    ),
    "a shape as numbers": ({"x": (3, 6)}, ValueError, r"jax\.ShapeDtypeStruct\(\(32, 784\)"),
    "functions the other way round": (
        {"model": (lambda p, x: x, lambda key: {})}, ValueError, "The other way round",
    ),
    "a factory with streams of its own": (
        {"model": lambda rngs: nnx.Dropout(0.5, rngs=nnx.Rngs(params=0).noise)}, ValueError, "hand it on as it is",
    ),
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


KEPT: list[Any] = []
NUMBERS = np.random.default_rng(0)


def dense(after: Any) -> Any:
    """A model that does something with the output of its layer."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            y = nn.Dense(4, name="fc")(x)
            return after(y)

    return Model()


class Stateful(nnx.Module):
    """Does something with itself, given its output."""

    def __init__(self, rngs: nnx.Rngs, after: Any) -> None:
        self.fc, self.calls, self.after = nnx.Linear(6, 4, rngs=rngs), 0, after
        self.cache = nnx.BatchStat(jnp.zeros((1, 4)))

    def __call__(self, x: Any) -> Any:
        y = self.fc(x)
        self.after(self, y)
        return y


def stateful(after: Any) -> Any:
    return lambda rngs: Stateful(rngs, after)


def counted(module: Any, y: Any) -> None:
    module.calls += 1


def remembered(module: Any, y: Any) -> None:
    module.latest = y


def grown(module: Any, y: Any) -> None:
    module.cache.set_value(jnp.concatenate([module.cache[...], y]))


def kept(module: Any, y: Any) -> None:
    module.cache[...] = y.sum(axis=0, keepdims=True)


def called(y: Any) -> Any:
    return jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(y.shape, y.dtype), y, vmap_method="sequential")


def drawn_by_numpy(key: Any, shape: Any, dtype: Any = None) -> Any:
    return jnp.asarray(NUMBERS.normal(size=shape), jnp.float32)


IMPURE: dict[str, tuple[Any, str]] = {
    "debug.print": (dense(lambda y: jax.debug.print("{}", y) or y), r"calls the host \(debug_print in the model\)"),
    "debug.callback": (dense(lambda y: jax.debug.callback(print) or y), r"Model calls the host \(debug_callback"),
    "a callback inside a scan": (
        dense(lambda y: jax.lax.scan(lambda c, _: (c, jax.debug.callback(print)), y, None, 2)[0]), "calls the host",
    ),
    "a global list": (dense(lambda y: KEPT.append(y) or y), r"keeps values of its trace in Python \(.*KEPT\)"),
    "numbers of NumPy": (dense(lambda y: y + NUMBERS.normal(size=(1, 4)).astype("f4")), "something else every time"),
    "a number of NumPy": (dense(lambda y: y * float(NUMBERS.normal())), "something else every time"),
    "weights of NumPy": (nn.Dense(4, kernel_init=drawn_by_numpy), "something else than its key"),
    "nnx: a counter": (stateful(counted), r"Stateful assigns to its attribute calls .*\(0 becomes 1\)"),
    "nnx: an attribute": (stateful(remembered), "assigns to its attribute latest"),
    "nnx: a variable that grows": (stateful(grown), r"variable cache from float32\[1,4\] to float32\[4,4\]"),
}  # fmt: skip


class Stopped(Exception):
    pass


def stop(*args: Any, **kwargs: Any) -> Any:
    raise Stopped


@pytest.mark.parametrize("name", IMPURE)
def test_a_model_that_does_more_than_compute_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxinit.ensemble.run", stop)
    model, text = IMPURE[name]
    gc.unfreeze()  # what the collector leaves alone, as conftest has it, is nobody's who keeps a tracer
    with pytest.warns(UserWarning, match=text) as said, pytest.raises(Stopped):
        probe(model, X, seeds=1)
    gc.freeze()
    assert len(said) == 1
    KEPT.clear()


@pytest.mark.parametrize("name", ["debug.print", "a number of NumPy", "weights of NumPy"])
def test_watch_and_calibrate_name_it_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = IMPURE[name]
    monkeypatch.setattr("jaxinit.adapt._calibrate.begin", stop)
    with pytest.warns(UserWarning, match=text) as said, pytest.raises(Stopped):
        calibrate(model, X, jax.random.key(0))
    assert len(said) == 1 and said[0].filename == __file__
    params = jax.eval_shape(model.init, jax.random.key(0), X)["params"]
    if name == "weights of NumPy":  # of parameters that are given nobody asks how they were drawn
        watch(model, params, X)
        return
    with pytest.warns(UserWarning, match=text) as said:
        watch(model, params, X)
    assert len(said) == 1 and said[0].filename == __file__


class Flagged(nn.Module):
    @nn.compact
    def __call__(self, x: Any, deterministic: bool = True) -> Any:
        return nn.Dropout(0.5, deterministic=deterministic)(nn.Dense(4)(x))


UNTOLD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "linen": (TWO, {}, "in Two, whose __call__ has none of the arguments 'train'.*or give it one"),
    "a method of linen": (Flagged(), {"method": lambda m, x: m(x)}, "in Flagged, as only __call__ is told"),
    "nnx": (zoo.Pair, {}, r"in Pair, whose train\(\) sets no attribute"),
    "an nnx module": (zoo.Pair(nnx.Rngs(0)), {}, r"in Pair, whose train\(\) sets no attribute"),
    "functions": (PLAIN, {}, "in apply_functions, as functions of a pair are not told"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNTOLD)
def test_a_model_that_takes_no_notice_of_train_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twins: without train=True, and models that are told (those of the zoo, below, too), give no warning."""
    monkeypatch.setattr("jaxinit.ensemble.run", stop)
    model, given, text = UNTOLD[name]
    with (
        pytest.warns(UserWarning, match=f"train=True changes nothing {text}") as said,
        pytest.raises(Stopped),
    ):
        probe(model, X, seeds=1, train=True, **given)
    assert len(said) == 1 and said[0].filename == __file__
    with pytest.raises(Stopped):
        probe(model, X, seeds=1, **given)
    with pytest.raises(Stopped):
        probe(Flagged(), X, seeds=1, train=True)


def test_a_trace_that_tells_nothing_new_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that finds the batch axes shows whether numbers change from trace to trace."""
    monkeypatch.setattr("jaxinit.ensemble.run", stop)
    for numbers, traces in ((lambda: 2.0, 2), (NUMBERS.normal, 3)):
        calls: list[Any] = []
        model = dense(lambda y, calls=calls, numbers=numbers: calls.append(y.shape) or y * float(numbers()))
        params = jax.eval_shape(nn.Dense(4).init, jax.random.key(0), X)["params"]
        warned = pytest.warns(UserWarning) if traces == 3 else contextlib.nullcontext()
        with warned:
            watch(model, {"fc": params}, X)
        assert len(calls) == traces


@pytest.mark.parametrize("name", [*zoo.CASES, "nnx: kept variables"])
def test_pure_models_are_not_accused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model of the zoo: warnings are errors here."""
    monkeypatch.setattr("jaxinit.ensemble.run", stop)
    case = zoo.CASES.get(name, zoo.Case(stateful(kept), X, ()))
    with pytest.raises(Stopped):
        probe(case.model, case.x, seeds=1, train=case.train)


IMPOSSIBLE: dict[str, tuple[Any, str]] = {
    "a while loop": (
        dense(lambda y: jax.lax.while_loop(lambda v: v.sum() < 0, lambda v: v + 1, y)),
        "Reverse-mode .* backward=False measures the signal alone",
    ),
    "a callback without a derivative": (dense(called), "JVP.* backward=False"),
    "Python's if": (dense(lambda y: y if y.sum() > 0 else -y), r"one that jax can trace .*jax\.lax\.cond"),
    "NumPy": (dense(lambda y: jnp.asarray(np.sort(y))), "one that jax can trace .*jax.numpy"),
    "an attribute of a linen module": (dense(lambda y: setattr(nn.Dense(1), "calls", 1) or y), "leaves its attributes"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_model_that_cannot_be_measured_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxinit.ensemble.run", stop)
    model, text = IMPOSSIBLE[name]
    with pytest.raises(ValueError, match=f"(?s){text}"):
        probe(model, X, seeds=1)


def constant(rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(6, 4, rngs=nnx.Rngs(0))


def test_a_factory_that_ignores_its_rngs_is_named() -> None:
    with pytest.warns(UserWarning, match="same signal for every seed"):
        probe(constant, X, seeds=2, record=["second_moment"], backward=False, devices=1)
