"""The probe of models whose weights are never formed against the same models drawn: one law, two programs.

Sizes fixed beforehand; means within 5 standard errors of both, samples by Kolmogorov and Smirnov at the 1e-4 level.
The loss of the MLP is |f|^2 / 2: its cotangents depend on the weights through the forward pass, so gradients have
the right law only if the backward products know of the forward ones.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

import jaxinit as ji
from jaxinit.models import MLP
from jaxinit.probe import _evaluate, _lookup, _thread, _unformed, probe

WIDTH, DEPTH, SEEDS = 16, 3, 768
NAMES = ["log_second_moment", "correlation", "log_grad_second_moment", "weight_grad_norm", "update_ratio"]
X = np.random.default_rng(0).normal(size=(2, WIDTH)).astype("f4")


def mlp(scale: float) -> MLP:
    kernel = ji.variance_scaling(scale, "fan_in", "normal")
    return MLP(DEPTH, WIDTH, WIDTH, kernel_init=kernel, use_bias=False)


def run(model: Any, x: Any, weights: str, seeds: int, **kwargs: Any) -> ji.Propagation:
    root = 1 if weights == "implicit" else 0
    return probe(model, x, seeds=seeds, weights=weights, record=NAMES, keep_seeds=True, root=root, **kwargs)


def half_square(out: Any) -> Any:
    return jnp.sum(out**2) / 2


@pytest.fixture(scope="module")
def drawn() -> ji.Propagation:
    return run(mlp(2.0), X, "materialized", SEEDS, loss=half_square)


def apart(a: ji.Propagation, b: ji.Propagation, names: Sequence[str] = NAMES) -> dict[str, float]:
    """The largest difference of the means of each figure, in units of 5 standard errors."""
    out = {}
    for name in names:
        one, two = a[name], b[name]
        here = np.isfinite(one.mean)
        np.testing.assert_array_equal(one.mean[~here], two.mean[~here], name)
        error = np.hypot(one.stderr[here], two.stderr[here]) + 1e-6
        out[name] = float(np.max(np.abs(one.mean[here] - two.mean[here]) / (5 * error)))
    return out


def smallest(a: ji.Propagation, b: ji.Propagation) -> float:
    """The smallest p-value over figures, sites and inputs."""
    found = []
    for name in NAMES:
        one, two = (s.reshape((len(s), -1)) for s in (a[name].samples, b[name].samples))
        found += [stats.ks_2samp(p, q).pvalue for p, q in zip(one.T, two.T, strict=True)]
    return float(min(found))


def test_mlp_has_the_law_of_drawn_weights(drawn: ji.Propagation) -> None:
    found = run(mlp(2.0), X, "implicit", SEEDS, loss=half_square)
    assert set(found.config["parameters"].values()) == {"implicit (gaussian)"}
    assert found.sites == drawn.sites and found.config["unformed_bytes"] == 4 * DEPTH * WIDTH**2
    assert max(apart(found, drawn).values()) < 1, apart(found, drawn)
    assert smallest(found, drawn) > 1e-4
    norm, other = found.parameters.norm, drawn.parameters.norm  # type: ignore[union-attr]
    assert np.all(np.abs(norm.mean - other.mean) < 5 * np.hypot(norm.stderr, other.stderr))
    assert np.all(np.abs(norm.stderr / other.stderr - 1) < 5 / np.sqrt(SEEDS))


def test_twin_another_variance_is_seen(drawn: ji.Propagation) -> None:
    """Of the first layer's weights, a tenth more: the signal is that of inputs which are so much larger."""
    found = run(mlp(2.0), np.sqrt(np.float32(1.1)) * X, "implicit", SEEDS, loss=half_square)
    assert apart(found, drawn)["log_second_moment"] > 1 and smallest(found, drawn) < 1e-4


def test_twin_a_backward_pass_that_forgets_is_seen(
    drawn: ji.Propagation, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = _unformed._gaussian.backward_and_seen

    def forgetful(key: Any, residual: Any, d: Any, stddev: Any) -> Any:
        return true(key, tuple(jnp.zeros_like(v) for v in residual), d, stddev)

    monkeypatch.setattr(_unformed._gaussian, "backward_and_seen", forgetful)
    found = run(mlp(2.0), X, "implicit", SEEDS, loss=lambda out: half_square(out))
    worst = apart(found, drawn)
    assert worst["log_second_moment"] < 1 and worst["log_grad_second_moment"] > 1, worst


def test_truncated_normal_kernels_taken_for_normal_ones_have_nearly_their_law() -> None:
    """Flax's default. Products keep means and covariances: at width 16 nothing is seen of the rest, of order 1 / 16.

    The twin, normal kernels of the variance before the cut, is seen: ReLU's signal grows by it, layer by layer.
    """
    model, names = MLP(2, WIDTH, WIDTH, use_bias=False), ["log_second_moment", "log_grad_second_moment"]
    found, drawn = (
        probe(model, X, seeds=400, loss=half_square, record=names, keep_seeds=True, root=root, **how)
        for root, how in enumerate(({"weights": "implicit", "approximate": True}, {}))
    )
    words = set(found.config["parameters"].values())
    assert words == {"implicit (truncated normal, taken for normal)"}
    assert max(apart(found, drawn, names).values()) < 1, apart(found, drawn, names)
    one, two = (run["log_second_moment"].samples[:, -1, 0] for run in (found, drawn))
    assert stats.ks_2samp(one, two).pvalue > 1e-4
    growth = -2 * np.log(stats.truncnorm(-2, 2).var())
    assert stats.ks_2samp(one + growth, two).pvalue < 1e-9


class Block(nn.Module):
    """Attention and a gated MLP, of normal and orthogonal matrices."""

    @nn.compact
    def __call__(self, x: Any, _: Any) -> Any:
        he, lecun = ji.variance_scaling(2.0, "fan_in", "normal"), ji.variance_scaling(1.0, "fan_in", "normal")
        h = nn.LayerNorm(use_bias=False)(x)
        heads = nn.DenseGeneral((3, 2, 16), kernel_init=lecun, use_bias=False, name="heads")(h)
        seen = nn.dot_product_attention(*jnp.moveaxis(heads, -3, 0))
        out = nn.DenseGeneral(x.shape[-1], axis=(-2, -1), kernel_init=lecun, use_bias=False, name="out")
        x = x + out(seen)
        h = nn.LayerNorm(use_bias=False)(x)
        gate = nn.Dense(48, kernel_init=ji.orthogonal(), name="gate")(h)
        up = nn.Dense(48, kernel_init=he, use_bias=False, name="up")(h)
        return x + nn.Dense(x.shape[-1], kernel_init=he, use_bias=False, name="down")(
            nn.silu(gate) * up
        ), None


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        layers = nn.scan(nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return layers(name="blocks")(x, None)[0]


@pytest.mark.slow
def test_a_scanned_and_rematerialized_transformer() -> None:
    x = np.random.default_rng(1).normal(size=(2, 5, 32)).astype("f4")
    found, drawn = (run(Stack(), x, weights, 160) for weights in ("implicit", "materialized"))
    words = found.config["parameters"]
    assert [k for k, v in words.items() if v == "implicit (orthogonal)"] == ["blocks/gate/kernel"]
    assert sum(v == "implicit (gaussian)" for v in words.values()) == 4
    assert found.sites == drawn.sites
    assert max(apart(found, drawn).values()) < 1, apart(found, drawn)
    same_norms(found, drawn)


class Images(nn.Module):
    """Tokens as places of an image, of which some are equal; two convolutions, one of them in groups of channels; the
    sum of three experts."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        kernel = ji.variance_scaling(2.0, "fan_in", "normal")
        h = nn.Embed(50, 8, embedding_init=ji.normal(1.0), name="embed")(x).reshape((len(x), 4, 4, 8))
        h = nn.relu(nn.Conv(12, (3, 3), strides=2, kernel_init=kernel, use_bias=False, name="wide")(h))
        narrow = nn.Conv(
            6,
            (2, 2),
            padding="VALID",
            feature_group_count=2,
            kernel_init=kernel,
            use_bias=False,
            name="narrow",
        )
        h = narrow(h)
        experts = self.param("experts", ji.normal(0.4), (3, 6, 8))
        apart = jnp.tanh(h.reshape((1, len(x), 6)) * jnp.arange(1.0, 4.0)[:, None, None])
        return jnp.sum(jnp.einsum("ebi,eij->ebj", apart, experts), axis=0)


TOKENS = np.random.default_rng(2).integers(0, 12, size=(2, 16))


@pytest.fixture(scope="module")
def images() -> ji.Propagation:
    return run(Images(), TOKENS, "materialized", 400, loss=half_square)


def same_norms(a: ji.Propagation, b: ji.Propagation) -> None:
    for name in ("norm", "gradient_norm"):
        one, two = getattr(a.parameters, name), getattr(b.parameters, name)
        assert np.all(np.abs(one.mean - two.mean) <= 5 * np.hypot(one.stderr, two.stderr) + 1e-5), name


def test_convolutions_lookups_and_batches_of_matrices_have_the_law_of_drawn_ones(
    images: ji.Propagation,
) -> None:
    found = run(Images(), TOKENS, "implicit", 400, loss=half_square)
    assert set(found.config["parameters"].values()) == {"implicit (gaussian)"}
    assert max(apart(found, images).values()) < 1, apart(found, images)
    assert smallest(found, images) > 1e-4
    same_norms(found, images)


def test_twin_a_token_that_is_drawn_anew_wherever_it_occurs_is_seen(
    images: ji.Propagation, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = _lookup._drawn
    monkeypatch.setattr(_lookup, "_drawn", lambda key, index, n: true(key, jnp.arange(len(index)), n))
    found = probe(Images(), TOKENS, seeds=400, weights="implicit", record=["correlation"], backward=False)
    assert apart(found, images, ["correlation"])["correlation"] > 1


class Again(nnx.Module):
    """Words through an LSTM and a layer that is called twice, and back to words: every kernel is multiplied again."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(40, 32, embedding_init=ji.normal(1.0), rngs=rngs)
        cell = nnx.OptimizedLSTMCell(
            32, 32, kernel_init=ji.normal(0.3), recurrent_kernel_init=ji.orthogonal(1.5), rngs=rngs
        )
        self.rnn = nnx.RNN(cell, rngs=rngs)
        self.shared = nnx.Linear(32, 32, use_bias=False, kernel_init=ji.normal(0.3), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        h = self.rnn(self.words(x))[:, -1]
        for _ in range(2):
            h = 2 * h + jnp.tanh(self.shared(h))
        return self.words.attend(h)


SENTENCES = np.asarray([[3, 7], [7, 30]])


@pytest.fixture(scope="module")
def again() -> ji.Propagation:
    return run(Again, SENTENCES, "materialized", 400, loss=half_square)


def test_kernels_that_are_multiplied_again_have_the_law_of_drawn_ones(again: ji.Propagation) -> None:
    found = run(Again, SENTENCES, "implicit", 400, loss=half_square)
    words = {name: word for name, word in found.config["parameters"].items() if not name.endswith("bias")}
    assert (
        words.pop("rnn/cell/dense_h/kernel") == "implicit (orthogonal), 2 products conditioned on one another"
    )
    assert len(words) == 3 and set(words.values()) == {
        "implicit (gaussian), 2 products conditioned on one another"
    }
    assert found.sites == again.sites
    assert max(apart(found, again).values()) < 1, apart(found, again)
    assert smallest(found, again) > 1e-4
    same_norms(found, again)


def forgetful(known: Any) -> Any:
    """As many products as there were, and nothing known of them."""
    return dataclasses.replace(jax.tree.map(jnp.zeros_like, known), counts=known.counts)


class Words(nnx.Module):
    """To words and back, the least of what `Again` does: each is most like itself."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(40, 32, embedding_init=ji.normal(1.0), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.words.attend(jnp.tanh(self.words(x[:, -1])))


def test_twin_a_kernel_that_is_drawn_anew_at_every_use_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    true, names = _thread.step, ["log_second_moment", "correlation"]

    def figures(model: Any, weights: str) -> ji.Propagation:
        root = 1 if weights == "implicit" else 0
        return probe(model, SENTENCES, seeds=400, weights=weights, record=names, backward=False, root=root)

    drawn, found = (figures(Words, weights) for weights in ("materialized", "implicit"))
    assert max(apart(found, drawn, names).values()) < 1, apart(found, drawn, names)
    monkeypatch.setattr(_thread, "step", lambda known, *how: true(forgetful(known), *how))
    found = figures(lambda rngs: Words(rngs), "implicit")  # another function, so that it is traced again
    assert max(apart(found, drawn, names).values()) > 1, apart(found, drawn, names)


@pytest.mark.parametrize("size", [1.0, 1e-22, 1e15])
def test_a_gradient_that_does_not_depend_on_the_weights_has_the_same_norm(size: float) -> None:
    """dL/dW = x^T 1 for L = sum(x W): exactly the same number, at any scale."""
    model = nn.Dense(12, use_bias=False, kernel_init=ji.normal(0.1))
    found, drawn = (
        probe(
            model, X * np.float32(size), seeds=1, weights=weights, loss=jnp.sum,
            record=["second_moment", "weight_grad_norm"],
        )
        for weights in ("implicit", "materialized")
    )  # fmt: skip
    np.testing.assert_allclose(found["weight_grad_norm"].mean, drawn["weight_grad_norm"].mean, rtol=1e-5)


def test_orthogonal_layers_keep_every_length() -> None:
    """Of a linear net of square orthogonal matrices, signal and gradient have one length, as drawn or not."""

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(3):
                x = nn.Dense(WIDTH, use_bias=False, kernel_init=ji.orthogonal())(x)
            return x

    names = ["log_second_moment", "log_grad_second_moment"]
    found = probe(Linear(), X, seeds=8, weights="implicit", record=names, keep_seeds=True)
    want = np.log(np.mean(X**2, axis=1))
    np.testing.assert_allclose(
        found["log_second_moment"].samples, np.broadcast_to(want, (8, 3, 2)), atol=1e-5
    )
    slopes = found["log_grad_second_moment"].samples
    np.testing.assert_allclose(slopes, np.broadcast_to(slopes[:, -1:], slopes.shape), atol=1e-5)


def test_orthogonal_convolutions_keep_the_length_of_every_patch() -> None:
    """With as many channels as a patch has entries, or more; then figures do not depend on the draw."""
    x = np.random.default_rng(3).normal(size=(1, 4, 3, 6)).astype("f4")
    for kernel, word in (
        (ji.orthogonal(1.3), "orthogonal"),
        (ji.delta_orthogonal(1.3), "delta_orthogonal"),
    ):
        model = nn.Conv(
            40, (3, 2), strides=(2, 1), kernel_dilation=(1, 2), kernel_init=kernel, use_bias=False
        )
        if word == "delta_orthogonal":
            model = model.clone(features=48)
        found, drawn = (
            probe(
                model, np.tile(x, 5) if word != "orthogonal" else x, seeds=1, weights=weights, loss=half_square,
                sites="all", record=["second_moment", "grad_second_moment", "weight_grad_norm"],
            )
            for weights in ("implicit", "materialized")
        )  # fmt: skip
        assert found.config["parameters"] == {"kernel": f"implicit ({word})"}
        for name in ("second_moment", "grad_second_moment", "weight_grad_norm"):
            np.testing.assert_allclose(found[name].mean, drawn[name].mean, rtol=1e-5)


def through_loops(p: Any, x: Any) -> Any:
    """tanh(h) W W^T = tanh(h), twice, in every kind of program."""

    def step(h: Any, n: Any) -> Any:
        up = jax.checkpoint(lambda h: jnp.tanh(h) @ p["w"])(h)
        there = (lambda u: u @ p["w"].T, lambda u: jnp.einsum("bo,io->bi", u, p["w"]))
        return jax.jit(lambda u: jax.lax.cond(n > 0, *there, u))(up), None

    return jax.lax.scan(step, x, jnp.arange(2))[0]


def there_and_back(p: Any, x: Any) -> Any:
    return jnp.tanh(x) @ p["w"] @ p["w"].T


def figures_of(apply: Any, weights: str) -> tuple[ji.Propagation, Any, Any]:
    model = (lambda key: {"w": ji.orthogonal()(key, (32, 32), jnp.float32)}, apply)
    x, names = X[:1].repeat(2, 1), ["second_moment", "grad_second_moment"]
    found = probe(model, x, seeds=1, weights=weights, loss=lambda out: half_square(out), record=names)
    assert found.parameters is not None
    return found, np.stack([found[name].mean for name in names]), found.parameters.gradient_norm.mean  # type: ignore[union-attr]


def test_one_orthogonal_matrix_through_loops_calls_and_branches() -> None:
    """Figures do not depend on the draw."""
    found, *own = figures_of(through_loops, "implicit")
    drawn, *theirs = figures_of(through_loops, "materialized")
    assert found.config["parameters"] == {"w": "implicit (orthogonal), 6 products conditioned on one another"}
    assert found.sites == drawn.sites
    for one, two in zip(own, theirs, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-5)


def test_twin_gradients_that_do_not_know_of_the_forward_pass_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true = _evaluate.settle

    def unsettled(threads: Any, values: Any) -> Any:
        return true({n: dataclasses.replace(t, known=forgetful(t.known)) for n, t in threads.items()}, values)

    monkeypatch.setattr(_evaluate, "settle", unsettled)
    _, _, wrong = figures_of(there_and_back, "implicit")
    _, _, right = figures_of(there_and_back, "materialized")
    assert abs(wrong[0] / right[0] - 1) > 0.01
