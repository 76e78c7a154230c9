"""Which parameters are never formed, and why not the others; laws read from programs; bad input; lowering."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zoo_models as zoo
from flax import nnx
from jax.extend import core

import jaxinit as ji
from jaxinit.models import MLP
from jaxinit.probe import _drawn, probe
from jaxinit.probe._probe import _build
from jaxinit.probe._unformed import Unformed
from jaxinit.probe._wanted import want

KEY = jax.random.key(0)
NORMAL = ji.variance_scaling(1.0, "fan_in", "normal")
WIDE = 4096


def built(model: Any, x: Any, approximate: bool = False, **choices: Any) -> Any:
    args = x if isinstance(x, tuple) else (x,)
    return _build(
        "probe", model, args, None, train=False, method=None, rngs=None, loss=None, backward=True, record=None,
        optimizer=None, sites=None, unformed="approximate" if approximate else "exact", **choices,
    )  # fmt: skip


def words(model: Any, x: Any, approximate: bool = False) -> dict[str, str]:
    return built(model, x, approximate).program.measure.treatment.config["parameters"]


def by_inverse(key: Any, shape: Any, dtype: Any = jnp.float32) -> Any:
    """A normal draw as `jax.random.normal` is traced where it is no call of its own."""
    low = np.nextafter(np.float32(-1), np.float32(0))
    return jax.lax.erf_inv(jax.random.uniform(key, shape, dtype, low, 1.0)) * np.float32(0.3 * math.sqrt(2))


def law(f: Callable[[Any], Any]) -> Any:
    (found,) = _drawn.laws(jax.make_jaxpr(f)(KEY))
    return found


@pytest.mark.parametrize(
    ("init", "kind", "stddev"),
    [
        (ji.normal(0.3), "gaussian", 0.3),
        (NORMAL, "gaussian", math.sqrt(1 / 8)),
        (jax.nn.initializers.normal(0.3), "gaussian", 0.3),
        (by_inverse, "gaussian", 0.3),
        (jax.nn.initializers.variance_scaling(2.0, "fan_avg", "normal"), "gaussian", math.sqrt(2 / 6)),
        (ji.he_normal(), "iid", 0.5),
        (jax.nn.initializers.he_normal(), "iid", 0.5),
        (ji.glorot_uniform(), "iid", math.sqrt(1 / 6)),
        (jax.nn.initializers.glorot_uniform(), "iid", math.sqrt(1 / 6)),
        (ji.orthogonal(1.5), "orthogonal", 1.5),
        (jax.nn.initializers.orthogonal(1.5), "orthogonal", 1.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # functions print their address
)
def test_laws_are_read_from_the_program(init: Any, kind: str, stddev: float) -> None:
    found = law(lambda key: init(key, (8, 4), jnp.float32))
    assert (found.kind, found.mean) == (kind, 0.0)
    assert found.stddev == pytest.approx(stddev, rel=1e-6)


def test_delta_orthogonal_kernels_are_read_where_asked_for() -> None:
    for init in (ji.delta_orthogonal(1.5), jax.nn.initializers.delta_orthogonal(1.5)):
        for shape, tap in (((5, 3, 2, 4), (2, 1)), ((4, 2, 2), (1,))):
            program = jax.make_jaxpr(lambda key, init=init, shape=shape: init(key, shape, jnp.float32))(KEY)
            (found,) = _drawn.laws(program, sparse=True)
            assert found is not None and (found.kind, found.stddev, found.tap) == (
                "delta_orthogonal",
                1.5,
                tap,
            )
            assert _drawn.laws(program) == [None]


def test_what_keeps_a_law_and_what_does_not() -> None:
    def normal(key: Any) -> Any:
        return jax.random.normal(key, (8, 4))

    def layers(key: Any, split: bool) -> Any:
        keys = jax.random.split(key, 3)
        return jax.lax.scan(lambda c, k: (c, normal(k if split else key)), 0.0, keys)[1]

    assert law(lambda key: normal(key).T.reshape(2, 16) / -4.0).stddev == 0.25
    assert law(lambda key: normal(key) * jnp.sqrt(4.0) + 1.0)[2:4] == (2.0, 1.0)
    assert law(lambda key: layers(key, True)).stacked == 1
    for other in (
        lambda key: layers(key, False),  # every layer is the same
        lambda key: jnp.concatenate([normal(key), normal(key)]),
        lambda key: jnp.broadcast_to(normal(key)[:1], (8, 4)),
        lambda key: normal(key) ** 2,
        lambda key: jnp.maximum(normal(key), 0.0),
        lambda key: jnp.clip(normal(key), -3.0, 3.0),
        lambda key: normal(key) * jnp.arange(4.0)[None],
        lambda key: jnp.cumsum(normal(key), axis=0),
        lambda key: jnp.linalg.qr(normal(key))[0],
    ):
        assert law(other) is None
    assert law(lambda key: normal(key).astype(jnp.bfloat16)).kind == "iid"
    assert law(lambda key: jax.random.uniform(key, (8, 4))).mean == 0.5


def test_truncated_moments_are_those_of_the_initializers() -> None:
    from jaxinit.initializers._draw import truncated_moments

    for bounds in ((-2.0, 2.0), (-1.0, 3.0), (-math.inf, 0.5)):
        np.testing.assert_allclose(_drawn._truncated(*bounds), truncated_moments(*bounds), rtol=1e-12)


class Mixed(nn.Module):
    """One parameter of every kind."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        embed = nn.Embed(64, 32, embedding_init=ji.normal(1.0), name="embed")
        h = embed(x) + nn.Embed(64, 32, embedding_init=ji.normal(1.0), name="tokens")(x)
        h = h + nn.Embed(4, 32, embedding_init=ji.normal(1.0), name="few")(x)
        h = nn.Dense(32, kernel_init=NORMAL, name="plain")(h)
        h = nn.LayerNorm(name="norm")(h)
        twice = nn.Dense(32, kernel_init=NORMAL, name="twice")
        h = twice(twice(h))
        h = nn.Dense(32, name="default")(h)
        h = nn.Dense(32, kernel_init=NORMAL, dtype=jnp.bfloat16, name="half")(h).astype(jnp.float32)
        h = nn.Dense(32, kernel_init=nn.initializers.normal(0.1), name="cast", param_dtype=jnp.bfloat16)(h)
        h = nn.DenseGeneral((4, 8), kernel_init=ji.orthogonal(), name="heads")(h)
        h = nn.DenseGeneral(32, axis=(-2, -1), kernel_init=ji.orthogonal(), name="joined")(h)
        h = nn.Conv(32, (1,), kernel_init=NORMAL, name="conv")(h)
        h = nn.Conv(32, (1,), feature_group_count=2, kernel_init=NORMAL, name="grouped")(h)
        h = nn.Dense(32, kernel_init=ji.uniform(0.0, 1.0), name="shifted")(h)
        h = nn.WeightNorm(nn.Dense(32, kernel_init=NORMAL), name="weight_norm")(h)
        h = nn.Dense(2, kernel_init=NORMAL, name="small")(h[..., :2])
        return embed.attend(nn.Dense(32, kernel_init=NORMAL, name="back")(h))


TOKENS = np.arange(4).reshape(2, 2)


def test_each_parameter_is_treated_by_its_law_and_use() -> None:
    found = words(Mixed(), TOKENS)
    assert {name for name, word in found.items() if word.startswith("implicit")} == {
        "plain/kernel", "heads/kernel", "joined/kernel", "conv/kernel", "grouped/kernel", "tokens/embedding",
        "embed/embedding",
    }  # fmt: skip
    assert found["embed/embedding"] == "implicit (gaussian), 2 products conditioned on one another"
    assert found["heads/kernel"] == found["joined/kernel"] == "implicit (orthogonal)"
    for name, why in {
        "plain/bias": "no matrix", "twice/kernel": "2 products of 8 rows in all with its 32 x 32", "default/kernel":
        "truncated normal; approximate=True", "half/kernel": "rounded to bfloat16", "cast/kernel": "rounded",
        "shifted/kernel": "mean 0", "small/kernel": "need more numbers",
        "back/kernel": "4 rows with its 2 x 32", "few/embedding": "as many of its rows",
    }.items():  # fmt: skip
        assert found[name].startswith("materialized: ") and why in found[name], (name, found[name])
    more = words(Mixed(), TOKENS, approximate=True)
    extra = {name for name in found if more[name] != found[name]}
    assert extra == {"default/kernel", "half/kernel", "cast/kernel"}
    assert more["default/kernel"] == "implicit (truncated normal, taken for normal)"


def test_loops_branches_and_shared_draws() -> None:
    class Recurrent(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.RNN(nn.SimpleCell(32, kernel_init=NORMAL, recurrent_kernel_init=ji.orthogonal()))(x)

    found = words(Recurrent(), np.ones((2, 3, 32), "f4"))
    kernels = [word for name, word in found.items() if name.endswith("kernel")]
    assert all("3 products conditioned on one another" in word for word in kernels), found
    found = words(Recurrent(), np.ones((2, 4, 32), "f4"))
    kernels = [word for name, word in found.items() if name.endswith("kernel")]
    assert all("4 products of 8 rows in all" in word for word in kernels), found

    def init(key: Any) -> Any:
        w = jax.random.normal(key, (32, 32))
        return {
            "a": w,
            "b": w,
            "c": (c := jax.random.normal(jax.random.fold_in(key, 1), (32, 32))),
            "d": c @ c,
        }

    def apply(p: Any, x: Any) -> Any:
        return jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"].T) @ p["c"] @ p["d"]

    found = words((init, apply), np.ones((2, 32), "f4"))
    assert found["a"] == found["b"] == "materialized: another parameter is the same draw"
    assert found["c"] == "materialized: other parameters are computed from it"
    assert "law is not known" in found["d"]


class Factory(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.one = nnx.Linear(WIDE, WIDE, kernel_init=NORMAL, rngs=rngs)
        self.two = nnx.Linear(WIDE, WIDE, kernel_init=nnx.initializers.normal(0.01), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.two(jnp.tanh(self.one(x)))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        body = nn.remat(nn.Dense)
        layers = nn.scan(
            lambda m, x, _: (body(WIDE, kernel_init=NORMAL, parent=m, name="dense")(x), None),
            variable_axes={"params": 0}, split_rngs={"params": True}, length=3,
        )  # fmt: skip
        return layers(self, x, None)[0]


def largest(jaxpr: core.Jaxpr) -> int:
    sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "size")]
    return max([0, *sizes, *(largest(j) for eqn in jaxpr.eqns for j in core.jaxprs_in_params(eqn.params))])


CELL = nn.SimpleCell(WIDE, kernel_init=NORMAL, recurrent_kernel_init=ji.orthogonal())
BIG = {
    "linen": MLP(3, WIDE, WIDE, kernel_init=NORMAL),
    "nnx": Factory,
    "scan, remat": Scanned(),
    "used again": nn.RNN(CELL),
}


@pytest.mark.parametrize("name", list(BIG))
def test_no_array_of_the_size_of_a_kernel_exists(name: str) -> None:
    """In the whole program, draws and gradients included; and it lowers for accelerators."""
    x = jnp.ones((2, WIDE))
    program = built(BIG[name], x).program
    traced = jax.jit(program).trace(KEY, ((x,), None, None))
    assert largest(traced.jaxpr.jaxpr) <= 16 * WIDE
    assert program.measure.treatment.bytes % (4 * WIDE**2) == 0
    if name != "nnx":
        traced.lower(lowering_platforms=("cuda", "tpu"))


def test_what_is_formed_is_drawn_as_the_model_draws_it() -> None:
    args = (jnp.asarray(TOKENS),)
    treatment = built(Mixed(), TOKENS).program.measure.treatment
    params, _ = treatment.init(KEY, args)
    with jax.numpy_dtype_promotion("standard"):
        model = Mixed().init({"params": KEY}, *args)["params"]
    drawn = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, Unformed))
    for n, (value, own) in enumerate(zip(drawn, jax.tree.leaves(model), strict=True)):
        assert isinstance(value, Unformed) == (n in treatment.laws)
        if not isinstance(value, Unformed):
            np.testing.assert_allclose(
                value, own, rtol=1e-5, atol=2e-7
            )  # eager against compiled: the last bits


def test_wanted_part_of_a_loop_carries_what_it_needs() -> None:
    def program(x: Any) -> Any:
        def step(carry: Any, each: Any) -> Any:
            a, b, c = carry
            return (a + each, b * 2 + a, c @ c), (a, b)

        (a, b, c), (every_a, every_b) = jax.lax.scan(step, (x, x, jnp.eye(64)), jnp.arange(4.0))
        return a, b, c, every_a, every_b

    closed = jax.make_jaxpr(program)(1.0)
    part = want(closed, [False, True, False, True, False])
    found = part([1.0])
    full = program(1.0)
    assert found[0] is found[2] is found[4] is None
    np.testing.assert_array_equal(found[1], full[1])
    np.testing.assert_array_equal(found[3], full[3])
    assert largest(jax.make_jaxpr(lambda x: [v for v in part([x]) if v is not None])(1.0).jaxpr) < 64


def test_a_seed_names_a_network_whatever_the_split_and_the_sites() -> None:
    model, x = MLP(2, 16, 16, kernel_init=NORMAL), np.ones((1, 16), "f4") * 1.5
    names = ["second_moment", "weight_grad_norm", "update_ratio"]
    all_of = probe(model, x, seeds=6, weights="implicit", record=names, keep_seeds=True)
    some = probe(
        model,
        x,
        seeds=[4, 5],
        weights="implicit",
        record=names,
        keep_seeds=True,
        devices=1,
        chunk=1,
        sites="*2",
    )
    for name in names:
        np.testing.assert_allclose(all_of[name].samples[4:, 1:], some[name].samples, rtol=2e-5)
    forward = probe(model, x, seeds=6, weights="implicit", backward=False)
    np.testing.assert_allclose(forward["second_moment"].mean, all_of["second_moment"].mean, rtol=2e-5)
    assert forward.parameters.norm.mean[1] == pytest.approx(4.0, abs=5 * math.sqrt(0.5 / 6))  # type: ignore[union-attr]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"weights": "implied"}, "'materialized' or 'implicit'"),
    "approximate alone": ({"approximate": True}, "approximate"),
    "optimizer": ({"weights": "implicit", "optimizer": optax.sgd(0.1)}, "entries, which are never formed"),
    "drawn": ({"weights": "implicit", "model": zoo.Pair(nnx.Rngs(0)), "seeds": 1}, "Pass a factory"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input(name: str) -> None:
    change, says = BAD[name]
    with pytest.raises(ValueError, match=says):
        probe(**{"model": zoo.Two(), "x": zoo.X, "seeds": 2, **change})


def test_a_model_with_nothing_to_leave_unformed_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxinit.ensemble.run", lambda *_, **__: 1 / 0)
    with (
        pytest.warns(UserWarning, match="forms every parameter of Two.*no matrix"),
        pytest.raises(ZeroDivisionError),
    ):
        probe(zoo.Two(), zoo.X, seeds=1, weights="implicit")
