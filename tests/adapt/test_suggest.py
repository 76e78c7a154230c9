"""`suggest`: what it writes is code that draws what it says, and the signal survives with it."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit as ji
from jaxinit.adapt import analyze, suggest
from jaxinit.records import Suggestion, load

X = jax.ShapeDtypeStruct((8, 10, 24), jnp.float32)


class Blocks(nn.Module):
    """Pre-norm attention and MLP blocks; the last projection is 0."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Dense(32, name="in", kernel_init=nn.initializers.orthogonal(5.0))(x)
        for k in range(2):
            h = nn.LayerNorm(name=f"ln{k}")(x)
            x = x + nn.MultiHeadDotProductAttention(4, name=f"att{k}")(h, h)
            h = nn.relu(
                nn.Dense(64, name=f"up{k}", kernel_init=nn.initializers.normal(2.0))(nn.LayerNorm()(x))
            )
            x = x + nn.Dense(32, name=f"down{k}", kernel_init=nn.initializers.he_uniform())(h)
        return nn.Dense(3, name="head", kernel_init=nn.initializers.zeros)(x)


@pytest.fixture(scope="module")
def suggestion() -> Suggestion:
    return suggest(Blocks(), X)


def test_the_code_draws_what_it_says(suggestion: Suggestion) -> None:
    for layer in suggestion:
        init = eval(layer.code, {"ji": ji})
        shape = {"in": (24, 32), "up": (32, 64), "down": (64, 32), "head": (32, 3)}.get(
            layer.parameter.split("/")[0].rstrip("01"), (32, 32)
        )
        law = init.law(shape)
        stddev = law.stddev / math.sqrt(max(shape)) if law.kind == "orthogonal" else law.stddev
        assert float(stddev) == pytest.approx(layer.stddev, rel=0.02), layer


def test_laws_and_branches_are_kept(suggestion: Suggestion) -> None:
    assert suggestion["in/kernel"].code == 'ji.orthogonal(1, preserve="variance")'
    assert suggestion["up0/kernel"].code == 'ji.lecun_normal(distribution="normal")'
    assert suggestion["down0/kernel"].code == "ji.residual(ji.he_uniform(), 4, branches=1)"
    assert suggestion["head/kernel"].code == "ji.zeros()" and suggestion["head/kernel"].why == "kept 0"
    assert suggestion.branches == 4 and "branch" in suggestion["att1/out/kernel"].why
    assert not suggestion["att0/query/kernel"].changed and suggestion["up0/kernel"].changed
    assert suggestion["up0/kernel"].line == 'Dense(..., kernel_init=ji.lecun_normal(distribution="normal"))'


def test_the_signal_survives_with_it(suggestion: Suggestion) -> None:
    shapes = jax.eval_shape(Blocks().init, jax.random.key(0), X)["params"]
    rules = {"**/scale": ji.ones(), **{p: eval(code, {"ji": ji}) for p, code in suggestion.rules.items()}}
    params = ji.reinit(shapes, {**rules, "**/bias": ji.zeros()}, jax.random.key(1))
    run = analyze(Blocks(), X, params=params)
    for site, second in zip(run.sites, run.second_moment.mean[:, 0], strict=True):
        goal = 0.0 if site == "head" else 0.25 if site.endswith("out") or site.startswith("down") else 1.0
        assert second == pytest.approx(goal, rel=0.35), site
    plain = analyze(Blocks(), X)
    assert plain.second_moment.mean[list(plain.sites).index("up0"), 0] > 50  # twin: the model as it is


def test_embeddings_and_other_parameters() -> None:
    class Mixture(nn.Module):
        @nn.compact
        def __call__(self, tokens: Any) -> Any:
            x = nn.Embed(20, 16, name="embed")(tokens)
            w = self.param("experts", nn.initializers.normal(1.0), (3, 16, 8))
            gate = nn.softmax(nn.Dense(3, name="router")(x))
            return jnp.einsum("btef,bte->btf", jnp.einsum("btd,edf->btef", x, w), gate)

    found = suggest(Mixture(), np.arange(40).reshape(4, 10) % 20)
    assert found["embed/embedding"].code == "ji.normal(1)"
    assert found["embed/embedding"].line == "Embed(..., embedding_init=ji.normal(1))"
    assert found["experts"].line == "experts: ji.normal(0.25)"


def test_kernels_that_are_cast_or_transposed_are_told_by_what_is_summed() -> None:
    class Heads(nn.Module):
        dtype: Any

        @nn.compact
        def __call__(self, x: Any) -> Any:
            h = nn.relu(nn.DenseGeneral((4, 6), dtype=self.dtype, name="split")(x))
            h = nn.DenseGeneral(32, axis=(-2, -1), dtype=self.dtype, name="join")(h)
            w = self.param("kernel", nn.initializers.normal(1.0), (24, 32))
            return nn.relu(h) @ w.astype(h.dtype).T

    for dtype in (jnp.float32, jnp.bfloat16):
        codes = [layer.code for layer in suggest(Heads(dtype), X)]
        assert codes == ["ji.lecun_normal()", "ji.he_normal()", "ji.normal(0.25)"]


class Normed(nn.Module):
    """Weight norm with a scale, and without."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Dense(32, kernel_init=nn.initializers.normal(3.0), name="in")(x))
        x = nn.relu(nn.WeightNorm(nn.Dense(32, name="up"), name="wn")(x))
        return nn.WeightNorm(nn.Dense(16, name="out"), use_scale=False)(x)


def test_of_a_normalized_kernel_the_scale_is_set() -> None:
    found = suggest(Normed(), X)
    scale = found["wn/up/kernel/scale"]
    assert scale.line == "WeightNorm(..., scale_init=ji.constant(1.414))" and scale.changed
    assert "wn/up/kernel/scale decides" in found["up/kernel"].why and not found["up/kernel"].changed
    assert "no part" in found["out/kernel"].why and not found["out/kernel"].changed
    assert [found[p].second_moment for p in ("up/kernel", "out/kernel")] == pytest.approx([1, 0.5], rel=0.01)
    shapes = jax.eval_shape(Normed().init, jax.random.key(0), X)["params"]
    rules = {**{p: eval(code, {"ji": ji}) for p, code in found.rules.items()}, "**/bias": ji.zeros()}

    x = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (4, 10, 24)), jnp.float32)  # of squares 1

    def agrees(by: float) -> bool:
        drawn = {**rules, scale.parameter: ji.constant(by * math.sqrt(2))}
        pair = (
            lambda key: ji.reinit(shapes, drawn, key),
            lambda p, x: Normed().apply({"params": p}, x),
        )
        run = ji.probe(pair, x, seeds=40, sites="ops", backward=False, keep_seeds=True)
        each = np.asarray(run.second_moment.samples)[:, 1].mean(axis=-1)
        return bool(abs(each.mean() - 1) <= 5 * each.std() / math.sqrt(40))

    assert agrees(1.0) and not agrees(0.8)


def test_a_tied_embedding_is_set_for_its_first_use() -> None:
    """As `calibrate` does: one answer."""

    class Tied(nn.Module):
        @nn.compact
        def __call__(self, tokens: Any) -> Any:
            embed = nn.Embed(20, 16, name="embed")
            return embed.attend(nn.LayerNorm(name="ln")(embed(tokens)))

    tokens = np.arange(40).reshape(4, 10) % 20
    found = suggest(Tied(), tokens)["embed/embedding"]
    params, record = ji.calibrate(Tied(), tokens, jax.random.key(0), method="analytic")
    assert found.stddev == pytest.approx(float(jnp.std(params["embed"]["embedding"])), rel=0.01)
    assert "output: 16" in found.why and record["output"].status == "shared"


def test_the_record_saves_and_shows_itself(suggestion: Suggestion, tmp_path: Any) -> None:
    again = load(suggestion.save(tmp_path / "s.npz"))
    assert str(again) == str(suggestion) and len(again.rows()) == len(suggestion)
    with pytest.raises(KeyError, match="in/kernel"):
        suggestion["in/kernl"]
    with pytest.raises(ValueError, match="target"):
        suggest(Blocks(), X, target=0)
