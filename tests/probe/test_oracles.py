"""Every figure against NumPy in float64: forward passes written by hand, gradients by central differences."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit as ji
from jaxinit.ensemble import keys_of
from jaxinit.probe import probe

Sites = dict[str, np.ndarray]


class Tape:
    """Values by site, and one entry of one site moved, so that differences of the loss are its gradients."""

    def __init__(self, moved: tuple[str, Any, float] | None = None) -> None:
        self.moved, self.values = moved, Sites()

    def __call__(self, name: str, value: np.ndarray) -> np.ndarray:
        self.values[name] = value
        if self.moved is not None and self.moved[0] == name:
            value = value.copy()
            value[self.moved[1]] += self.moved[2]
        return value


def gradients(loss: Callable[[Tape], float], step: float = 1e-5) -> tuple[Sites, Sites]:
    """The values at the sites, and the gradient of the loss at each."""
    tape = Tape()
    loss(tape)
    slopes = {name: np.zeros_like(value) for name, value in tape.values.items()}
    for name, slope in slopes.items():
        for index in np.ndindex(slope.shape):
            up, down = (loss(Tape((name, index, sign * step))) for sign in (1, -1))
            slope[index] = (up - down) / (2 * step)
    return tape.values, slopes


def cosines(rows: np.ndarray) -> np.ndarray:
    """Of all pairs of rows that are not 0."""
    rows = rows[np.any(rows != 0, axis=1)]
    u = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (u @ u.T)[np.triu_indices(len(u), 1)]


def expected(
    values: Sites, slopes: Sites, phi: dict[str, tuple[Any, Any, float]], apart: bool
) -> dict[str, np.ndarray]:
    """The statistics of the definitions, site by site. `phi`: nonlinearity, derivative and its maximum."""
    out: dict[str, list[Any]] = {}

    def add(**figures: Any) -> None:
        for name, value in figures.items():
            out.setdefault(name, []).append(value)

    for name, z in values.items():
        g = slopes[name]
        for x, prefix in ((z, ""), (g, "grad_")):
            rows = x.reshape(len(x), -1) if apart else x.reshape(1, -1)
            q, c = np.mean(rows**2, axis=1), cosines(x.reshape(len(x), -1))
            c = c if apart else np.mean(c, keepdims=True)
            add(
                **{
                    prefix + "second_moment": q,
                    f"log_{prefix}second_moment": np.log(q),
                    prefix + "correlation": c,
                }
            )
            if not prefix:
                centred = rows - rows.mean(axis=1, keepdims=True)
                m2, m4 = (centred**2).mean(axis=1), (centred**4).mean(axis=1)
                add(mean=rows.mean(axis=1), kurtosis=m4 / m2**2 - 3, one_minus_correlation=1 - c)
        silent = np.all(np.abs(g.reshape(-1, g.shape[-1])) < 1e-12, axis=0).mean()
        add(grad_zero_fraction=silent, nonfinite_fraction=0.0, grad_nonfinite_fraction=0.0)
        if name in phi:
            f, slope, largest = phi[name]
            s = slope(z).reshape(-1, z.shape[-1])
            add(dead_fraction=np.all(s == 0, axis=0).mean(), zero_fraction=np.mean(f(z) == 0))
            add(saturated_fraction=np.mean(np.abs(s) < 1e-2 * largest))
        else:
            add(dead_fraction=np.nan, saturated_fraction=np.nan, zero_fraction=np.mean(z == 0))
        if z.ndim > 2:
            positions = z.reshape(len(z), -1, z.shape[-1])
            add(position_correlation=np.mean([np.mean(cosines(p)) for p in positions]))
        else:
            add(position_correlation=np.nan)
    return {name: np.stack(value) for name, value in out.items()}


def check(run: ji.Propagation, want: dict[str, np.ndarray], sites: Sites) -> None:
    assert run.sites == tuple(sites)
    for name, value in want.items():
        found = run[name].mean
        assert found.shape == value.shape, name
        np.testing.assert_allclose(found, value, rtol=2e-4, atol=2e-5, err_msg=name)


@functools.cache
def drawn_mlp() -> Any:
    return drawn(Net(), MLP_INPUTS.astype("f4"))


def drawn(model: nn.Module, x: Any) -> Any:
    """The parameters of seed 0, float64."""
    with jax.numpy_dtype_promotion("standard"):
        params = model.init(keys_of([0], 0)[0], x)["params"]
    return jax.tree.map(lambda v: np.asarray(v, np.float64), params)


def half_square(out: Any) -> Any:
    return jnp.sum(jnp.square(out)) / 2


RELU = (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float), 1.0)
TANH = (np.tanh, lambda z: 1 - np.tanh(z) ** 2, 1.0)
RNG = np.random.default_rng(0)


class Net(nn.Module):
    """Three layers; biases drawn, so that a unit or two is dead."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        bias = nn.initializers.normal(1.0)
        x = nn.relu(nn.Dense(7, bias_init=bias)(x))
        x = jnp.tanh(nn.Dense(6, bias_init=bias, kernel_init=nn.initializers.normal(2.0))(x))
        return nn.Dense(2)(x)


MLP_INPUTS = RNG.normal(size=(3, 5))


def mlp(tape: Tape, slope: float = 0.0) -> float:
    x, p = MLP_INPUTS, drawn_mlp()
    h = tape("Dense_0", x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
    h = np.where(h > 0, h, slope * h)
    h = np.tanh(tape("Dense_1", h @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]))
    out = tape("Dense_2", h @ p["Dense_2"]["kernel"] + p["Dense_2"]["bias"])
    return float(np.sum(out**2) / 2)


@pytest.fixture(scope="module")
def mlp_run() -> ji.Propagation:
    return probe(Net(), MLP_INPUTS.astype("f4"), seeds=1, loss=half_square, devices=1)


def test_mlp_of_examples_apart(mlp_run: ji.Propagation) -> None:
    run, p = mlp_run, drawn_mlp()
    values, slopes = gradients(mlp)
    check(run, expected(values, slopes, {"Dense_0": RELU, "Dense_1": TANH}, apart=True), values)
    assert run.inputs == 3 and run.pairs == ((0, 1), (0, 2), (1, 2)) and run.pooled == 1

    h = np.tanh(values["Dense_1"])
    kernel = h.T @ slopes["Dense_2"]
    np.testing.assert_allclose(run["weight_grad_norm"].mean[2], np.linalg.norm(kernel), rtol=1e-4)
    size = np.linalg.norm(p["Dense_2"]["kernel"])
    np.testing.assert_allclose(run["update_ratio"].mean[2], np.linalg.norm(kernel) / size, rtol=1e-4)
    assert run.parameters is not None
    bias = run.parameters.index("Dense_2/bias")
    assert np.isnan(run.parameters.gradient_ratio.mean[bias])  # type: ignore[union-attr]
    norm = run.parameters.gradient_norm.mean[bias]  # type: ignore[union-attr]
    np.testing.assert_allclose(norm, np.linalg.norm(slopes["Dense_2"].sum(axis=0)), rtol=1e-4)


class Conv(nn.Module):
    """A convolution and a skip."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        h = nn.Conv(3, (3, 3), padding="VALID")(x)
        h = h + nn.Conv(3, (1, 1), name="branch")(nn.relu(h))
        return nn.Dense(2)(h.reshape(h.shape[0], -1))


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    rows, columns = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
    out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for i, j in np.ndindex(kernel.shape[:2]):
        out += x[:, i : i + rows, j : j + columns] @ kernel[i, j]
    return out


def test_convolution_and_skip_of_pooled_examples() -> None:
    x = RNG.normal(size=(5, 5, 4, 2))
    p = drawn(Conv(), x.astype("f4"))

    def loss(tape: Tape) -> float:
        h = tape("Conv_0", convolve(x, p["Conv_0"]["kernel"]) + p["Conv_0"]["bias"])
        h = h + tape("branch", np.maximum(h, 0) @ p["branch"]["kernel"][0, 0] + p["branch"]["bias"])
        out = tape("Dense_0", h.reshape(len(h), -1) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
        return float(np.sum(out**2) / 2)

    values, slopes = gradients(loss)
    run = probe(Conv(), x.astype("f4"), seeds=1, loss=half_square, devices=1)
    check(run, expected(values, slopes, {}, apart=False), values)
    assert run.inputs == 1 and run.pairs == ((0, 1),) and run.pooled == 5
    assert [s.batch_axis for s in run.layout] == [0, 0, 0] and run.layout[0].shape == (5, 3, 2, 3)


class Attention(nn.Module):
    """Pre-norm attention with a skip, by Flax."""

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(7, 4, name="embed")(tokens)
        return x + nn.MultiHeadDotProductAttention(2, name="attend")(nn.LayerNorm(name="norm")(x))


def test_attention() -> None:
    tokens = RNG.integers(0, 7, size=(3, 4))
    p = drawn(Attention(), tokens)
    heads = p["attend"]

    def loss(tape: Tape) -> float:
        x = tape("embed", p["embed"]["embedding"][tokens])
        mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        h = tape("norm", (x - mean) / np.sqrt(var + 1e-6))
        q, k, v = (
            tape(f"attend/{n}", np.einsum("btd,dhe->bthe", h, heads[n]["kernel"]) + heads[n]["bias"])
            for n in ("query", "key", "value")
        )
        scores = np.einsum("bthe,bshe->bhts", q, k) / np.sqrt(2.0)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("bhts,bshe->bthe", weights, v)
        out = tape(
            "attend/out", np.einsum("bthe,hed->btd", mixed, heads["out"]["kernel"]) + heads["out"]["bias"]
        )
        return float(np.sum(tape("output", x + out) ** 2) / 2)

    values, slopes = gradients(loss)
    run = probe(Attention(), tokens, seeds=1, loss=half_square, devices=1)
    want = expected(values, slopes, {}, apart=True)
    check(run, want, values)
    assert not any(site.activation for site in run.layout)
    assert run.layout[2].parameters == ("attend/query/kernel", "attend/query/bias")


@jax.custom_vjp
def sign(x: Any) -> Any:
    """Hubara et al. (2016): its derivative is 1 within (-1, 1), by a rule for the reverse pass."""
    return jnp.sign(x)


sign.defvjp(lambda x: (jnp.sign(x), x), lambda x, d: (d * (jnp.abs(x) < 1),))


def test_a_derivative_by_rule_and_complex_parameters() -> None:
    def init(key: Any) -> Any:
        return {"w": jax.random.normal(key, (5, 40)), "z": jax.random.normal(key, (1, 40), jnp.complex64)}

    x, params = MLP_INPUTS.astype("f4"), init(keys_of([0], 0)[0])
    run = probe(
        (init, lambda p, x: jnp.abs(sign(x @ p["w"]).astype(jnp.complex64) * p["z"])),
        x,
        seeds=1,
        loss=jnp.sum,
    )
    inside = np.abs(x @ params["w"]) < 1
    np.testing.assert_allclose(run["saturated_fraction"].mean, np.mean(~inside), rtol=1e-6)
    np.testing.assert_allclose(run["dead_fraction"].mean, np.mean(~inside.any(axis=0)), rtol=1e-6)
    assert run["zero_fraction"].mean == 0 and run.parameters is not None
    z = run.parameters.index("z")
    np.testing.assert_allclose(run.parameters.norm.mean[z], np.linalg.norm(params["z"]), rtol=1e-6)
    # d sum |s z| / dz is 3 z / |z|, of length 3, for the three examples: |s| = 1.
    np.testing.assert_allclose(run.parameters.gradient_norm.mean[z], 3 * np.sqrt(40), rtol=1e-6)


def test_twin_a_wrong_oracle_is_seen(mlp_run: ji.Propagation) -> None:
    """The check can fail: another nonlinearity, or another slope for the right one."""
    values, slopes = gradients(lambda tape: mlp(tape, slope=0.1))
    with pytest.raises(AssertionError, match="moment|mean"):
        check(mlp_run, expected(values, slopes, {"Dense_0": RELU, "Dense_1": TANH}, apart=True), values)
    values, slopes = gradients(mlp)
    with pytest.raises(AssertionError, match="saturated_fraction|dead_fraction"):
        check(mlp_run, expected(values, slopes, {"Dense_0": TANH, "Dense_1": TANH}, apart=True), values)
