"""Orbax checkpoints: what was saved is what a probe measures; what cannot be read is refused by name."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxinit as ji
from jaxinit.models import fitted, restore

ocp = pytest.importorskip("orbax.checkpoint")
X = np.random.default_rng(0).normal(size=(3, 6)).astype("f4")


class Model(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.BatchNorm(use_running_average=True, name="norm")(
            nn.Dense(8, name="a", param_dtype=jnp.bfloat16)(x)
        )
        return nn.Dense(2, name="b")(x)


class Twin(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.layers[1](self.norm(self.layers[0](x)))


@pytest.fixture(scope="module")
def variables() -> Any:
    with jax.numpy_dtype_promotion("standard"):
        made = jax.jit(Model().init)(jax.random.key(3), X)
    return jax.tree.map(lambda v: (v + 0.25).astype(v.dtype), made)


def save(path: Path, tree: Any) -> Path:
    with jax.numpy_dtype_promotion("standard"):
        ocp.PyTreeCheckpointer().save(path, tree)
    return path


def equal(a: Any, b: Any) -> bool:
    same = jax.tree.map(
        lambda x, y: x.dtype == y.dtype and np.array_equal(np.asarray(x), np.asarray(y)), a, b
    )
    return all(jax.tree.leaves(same))


def measured(run: ji.Propagation) -> dict[str, Any]:
    return {name: stat.mean for name, stat in run.statistics()}


def test_a_probe_of_a_checkpoint_is_that_of_the_variables(tmp_path: Path, variables: Any) -> None:
    path = save(tmp_path / "saved", variables)
    choices = {"seeds": 1, "record": ["second_moment", "grad_second_moment"], "devices": 1}
    found, held, drawn = (ji.probe(Model(), X, params=p, **choices) for p in (path, variables, None))
    for name, mean in measured(held).items():
        np.testing.assert_array_equal(measured(found)[name], mean)
        assert not np.array_equal(measured(drawn)[name], mean)
    layer = {name: np.asarray(v, "f4") for name, v in variables["params"]["a"].items()}
    by_hand = X @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(found["second_moment"].mean[0], np.square(by_hand).mean(axis=1), rtol=1e-5)


def test_trees_of_every_make(tmp_path: Path, variables: Any) -> None:
    shapes = jax.eval_shape(lambda: (variables["params"], {"batch_stats": variables["batch_stats"]}))
    training = {**variables, "opt_state": optax.adam(1e-3).init(variables["params"]), "step": np.int64(3)}
    for name, tree in (("variables", variables), ("training", training)):
        params, state = fitted("probe", save(tmp_path / name, tree), *shapes)
        assert equal(params, variables["params"]) and equal(state["batch_stats"], variables["batch_stats"])
    module = Twin(nnx.Rngs(1))
    _, trained, rest = nnx.split(module, nnx.Param, ...)
    pure = nnx.to_pure_dict(trained), nnx.to_pure_dict(rest)
    for name, tree in (("state", nnx.state(module)), ("pure", nnx.to_pure_dict(nnx.state(module)))):
        for given in (tree, save(tmp_path / name, tree)):
            params, state = fitted("probe", given, *jax.eval_shape(lambda: pure))
            assert equal(params, pure[0]) and equal(state, pure[1])


def test_what_a_manager_keeps(tmp_path: Path, variables: Any) -> None:
    for step in (1, 20):
        save(tmp_path / str(step) / "default", variables)
        if step == 1:
            assert equal(restore(tmp_path)["params"], variables["params"])
    with pytest.raises(ValueError, match=r"one Orbax checkpoint.* 2 in it: 1/default, 20/default"):
        restore(tmp_path)
    assert equal(restore(tmp_path / "20"), restore(tmp_path / "20" / "default"))


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    # One array: of several Orbax reads on after the first failure, and tells a closed event loop.
    path = save(tmp_path / "saved", {"kernel": np.ones((2, 3), "f4")})
    for part in [p for p in path.rglob("*") if p.is_file() and p.name != "_METADATA"]:
        part.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"`restore\(path=...\)` must be .* that Orbax can read"):
        restore(path)
    (path / "_METADATA").write_text("{")
    with pytest.raises(ValueError, match="Orbax can read"):
        restore(path)


def test_redrawn_and_saved_again(tmp_path: Path, variables: Any) -> None:
    tree = restore(save(tmp_path / "saved", variables))
    new = ji.reinit(tree, {"params/b/kernel": ji.zeros()}, jax.random.key(0))
    assert not new["params"]["b"]["kernel"].any() and equal(new["params"]["a"], variables["params"]["a"])
