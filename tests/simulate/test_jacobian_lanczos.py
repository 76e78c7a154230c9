"""simulate(jacobian=k) without weights: Lanczos on matrices that are never formed."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxinit as ji
from jaxinit import ensemble
from jaxinit._core.normals import vector
from jaxinit._core.scaled import Scaled
from jaxinit.implicit import _known
from jaxinit.meanfield import critical
from jaxinit.simulate import _jacobian, _lanczos
from jaxinit.simulate._lanczos import Lanczos, State, singular_values
from jaxinit.simulate._signal import Nonlinearity
from jaxinit.simulate._simulate import _inputs, _weights
from jaxinit.spectra import density

FAST = {"backward": False, "record": ["second_moment"]}
SEEDS = 3000

NETWORKS = {
    "tanh": ji.Network(3, 8, "tanh", weight_variance=1.7, bias_variance=0.1),
    "relu": ji.Network(2, [9, 7], "relu", weight_variance=2.0, input_width=8),
    "orthogonal": ji.Network(3, 8, "tanh", weight_variance=1.7, bias_variance=0.1, ensemble="orthogonal"),
}


def program(network: ji.Network, gradients: int = 2) -> Lanczos:
    weights = tuple(_weights(network, shape, "implicit", False, 2) for shape in network.shapes)
    biased = network.bias_variance > 0
    return Lanczos(weights, Nonlinearity.of(network.activation), biased, 2, gradients)


def rank(network: ji.Network) -> int:
    return min(network.shapes[0][0], network.shapes[-1][1])


def walks(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, State]:
    """Of every network, to its last step: alpha_1, the later betas and alphas, and the state."""
    network = NETWORKS[name]
    run, data = program(network), (network, _inputs(network, 1.0, 0.5, None))

    def one(key: jax.Array) -> tuple:
        state, first = run.start(key, data, rank(network))
        state, (betas, alphas) = jax.lax.scan(
            lambda s, _: run.step(key, s, network), state, None, length=rank(network)
        )
        return *(v.mantissa * 2.0 ** v.exponent.astype(jnp.float32) for v in (first, betas, alphas)), state

    return jax.device_get(jax.jit(jax.vmap(one))(ensemble.keys_of(np.arange(SEEDS), 0)))


right_walks = cache(walks)


def by_steps(walked: tuple) -> np.ndarray:
    """All singular values of every network, (seeds, rank)."""
    first, betas, alphas, _ = walked
    steps = betas.shape[1]
    b, i = np.zeros((SEEDS, steps + 1, steps)), np.arange(steps)
    b[:, i, i], b[:, i + 1, i] = np.concatenate([first[:, None], alphas[:, :-1]], axis=1), betas
    return np.linalg.svd(b, compute_uv=False)


@cache
def by_weights(name: str) -> np.ndarray:
    network = NETWORKS[name]
    weights = tuple(_weights(network, shape, "materialized", False, 2) for shape in network.shapes)
    explicit = _jacobian.Jacobian(weights, Nonlinearity.of(network.activation), network.bias_variance > 0)
    data = (network, _inputs(network, 1.0, 0.5, None))
    with jax.enable_x64(True):
        found, exponent = jax.jit(jax.vmap(lambda k: explicit(k, data)))(
            ensemble.keys_of(np.arange(SEEDS), 1)
        )
        return np.linalg.svd(np.asarray(found) * 2.0 ** np.asarray(exponent)[:, None, None], compute_uv=False)


def figures(values: np.ndarray) -> dict[str, np.ndarray]:
    """What is 0 to the rounding of the largest, as ReLU has it, is 0."""
    values = np.where(values < 1e-5 * values[:, :1], 0.0, values)
    return {
        "largest": values[:, 0], "third": values[:, 2], "smallest": values[:, -1],
        "product": np.log(np.where(values > 0, values, 1)).sum(axis=1), "squares": (values**2).sum(axis=1),
    }  # fmt: skip


def same(one: np.ndarray, other: np.ndarray) -> float:
    """The smallest p-value of Kolmogorov and Smirnov's tests."""
    a, b = figures(one), figures(other)
    return min(stats.ks_2samp(a[name], b[name], method="asymp").pvalue for name in a)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_law_of_all_singular_values(name: str) -> None:
    assert same(by_steps(right_walks(name)), by_weights(name)) > 1e-4


@pytest.mark.parametrize("name", ["tanh", "orthogonal"])
def test_twin_products_that_forget_those_of_the_other_side_are_seen(name: str, monkeypatch) -> None:
    monkeypatch.setattr(_known._frames, "project_out", lambda v, frame: v)
    assert same(by_steps(walks(name)), by_weights(name)) < 1e-9


def matrices(network: ji.Network, state: State) -> list[np.ndarray]:
    """Weights that agree with everything seen."""
    out = []
    for known, (weights, part) in zip(state.known, program(network)._runs(), strict=True):
        for l in range(part.stop - part.start):
            own = jax.tree.map(lambda v, l=l: v[l], known)
            out.append(np.asarray(own.matrix(jax.random.key(len(out)), weights.scale(network)), np.float64))
    return out


def at_ones(value: float) -> Scaled:
    return Scaled(np.float32(value), np.int32(0))


@pytest.mark.parametrize("name", ["tanh", "orthogonal"])
def test_one_network_has_all_that_was_drawn_and_measured(name: str, monkeypatch) -> None:
    """Matrices completed from what is known of them: their Jacobian has the values that the steps found, within the
    bounds at every step, and their signals and gradients are those that `simulate` records for the seed.

    There room for steps begins with 4, and no Jacobian fits into memory.
    """
    monkeypatch.setattr(_lanczos, "_ROOM", 4)
    monkeypatch.setattr(_jacobian, "_MOST_BYTES", 0)
    network, seed = NETWORKS[name], 4
    run = ji.simulate(network, [seed], jacobian=2, sampler="implicit" if name == "tanh" else "auto")
    assert run.config["sampler"].startswith("implicit") and run.extra["jacobian_steps"] > 4
    assert (run.extra["jacobian_log_errors"] <= -np.log1p(-_lanczos.TOLERANCE)).all()
    first, betas, alphas, state = jax.tree.map(lambda v: v[seed], right_walks(name))
    w = matrices(network, state)
    slopes = [np.asarray(s, np.float64)[l] for s in state.slopes for l in range(len(s))]
    jacobian = np.eye(network.shapes[0][0])
    for slope, each in zip(slopes, w, strict=True):
        jacobian = (jacobian * slope) @ each
    truth = np.linalg.svd(jacobian, compute_uv=False)
    a, b = [at_ones(v) for v in (first, *alphas)], [at_ones(v) for v in betas]
    for m in range(1, len(b) + 1):
        values, bounds, exponent = singular_values(a[: m + 1], b[:m])
        values, bounds = values * 2.0**exponent, bounds * 2.0**exponent
        assert (values <= truth[:m] + 1e-5 * truth[0]).all()
        assert (np.abs(values[:, None] - truth).min(axis=1) <= bounds + 1e-5 * truth[0]).all()
    np.testing.assert_allclose(values, truth, atol=1e-5 * truth[0])
    np.testing.assert_allclose(run.extra["jacobian_singular_values"][0], truth[:2], rtol=2e-5)

    # The record is of this network: signals of both inputs, gradients back from the same r.
    every = jax.random.split(ensemble.keys_of(np.asarray([seed]), 0)[0], (network.depth + 1, 4))
    h = np.asarray(_inputs(network, 1.0, 0.5, None).draw(every[0, 0]), np.float64)
    derivatives = []
    for l, each in enumerate(w):
        z = h @ each + np.asarray(vector(every[l + 1, 2], each.shape[1])) * np.sqrt(network.bias_variance)
        np.testing.assert_allclose(run.second_moment.mean[l], np.mean(z**2, axis=1), rtol=1e-4)
        h, slope = (
            np.asarray(v, np.float64)
            for v in network.activation.value_and_derivative(jnp.asarray(z, jnp.float32))
        )
        derivatives.append(slope)
    d = np.tile(np.asarray(vector(every[0, 1], w[-1].shape[1]), np.float64), (2, 1))
    for l in reversed(range(len(w))):
        d = d if l == len(w) - 1 else (d @ w[l + 1].T) * derivatives[l]
        expected = np.mean(d**2, axis=1) / w[-1].shape[1]
        np.testing.assert_allclose(run.grad_second_moment.mean[l], expected, rtol=1e-4)


def test_a_cap_is_told(monkeypatch) -> None:
    monkeypatch.setattr(_lanczos, "_ROOM", 4)
    monkeypatch.setattr(_lanczos, "most_steps", lambda count, rank: 2 * count)
    with pytest.warns(UserWarning, match=r"3 of 3 networks .* jacobian=4 takes up to 8"):
        early = ji.simulate(NETWORKS["tanh"], [0, 1, 4], jacobian=2, sampler="implicit").extra
    assert (early["jacobian_steps"] == 4).all()
    missing = np.log(by_steps(right_walks("tanh"))[[0, 1, 4], :2]) - early["jacobian_log_singular_values"]
    assert (missing >= -1e-5).all() and (early["jacobian_log_errors"].max(axis=1) > 1e-3).all()


def test_equal_values_far_beyond_floats() -> None:
    """Orthogonal and linear: a Krylov space ends with one of them. Each is sigma_w^L."""
    network = ji.Network(800, 8, "identity", weight_variance=0.25, ensemble="orthogonal")
    extra = ji.simulate(network, 1, sampler="implicit", jacobian=3, **FAST).extra
    np.testing.assert_allclose(extra["jacobian_log_singular_values"], 800 * np.log(0.5), rtol=1e-6)


def test_the_edge_of_the_limit() -> None:
    """By the law of infinite width 2 to 3 of 300 values are above the third; by another, none or many."""
    edge = critical("tanh", 0.05)[0]
    options = {"weight_variance": edge.weight_variance, "bias_variance": 0.05}
    network = ji.Network(5, 300, "tanh", **options, ensemble="orthogonal")
    q = (edge.q - 0.05) / edge.weight_variance
    extra = ji.simulate(network, 4, q=q, sampler="implicit", jacobian=3, **FAST).extra
    third = np.sort(2 * extra["jacobian_log_singular_values"][:, 2])

    def above(depth: int, law: str) -> float:
        limit = density("tanh", depth, edge.weight_variance, 0.05, ensemble=law, output="preactivations")
        return 300 * (1 - limit.cumulative(third)).mean()

    assert 1.5 < above(5, "orthogonal") < 4
    assert above(6, "orthogonal") > 6 and above(4, "orthogonal") < 1 and above(5, "gaussian") > 6


@pytest.mark.parametrize(
    ("text", "network", "options"),
    [
        ("not all, with sampler='implicit'", {"depth": 2, "width": 16}, {"jacobian": True, "sampler": "implicit"}),
        ("at most 16", {"depth": 2, "width": 16}, {"jacobian": 17, "sampler": "implicit"}),
        ("tied", {"depth": 2, "width": 16, "tied": True}, {"jacobian": 2, "sampler": "implicit"}),
        ("radial", {"depth": 2, "width": 16}, {"jacobian": 2, "sampler": "radial"}),
        ("jacobian=3", {"depth": 2, "width": 10_000}, {"jacobian": True}),
        ("smaller width", {"depth": 2, "width": 10_000, "tied": True}, {"jacobian": 2}),
        ("GiB", {"depth": 2, "width": 10_000}, {"jacobian": 2, "sampler": "materialized"}),
        ("steps keep .* available", {"depth": 100_000, "width": 100_000}, {"jacobian": 2}),
    ],
)  # fmt: skip
def test_refusals(text: str, network: dict, options: dict) -> None:
    with pytest.raises(ValueError, match=text):
        ji.simulate(ji.Network(activation="tanh", weight_variance=1.0, **network), 2, **options)


def test_lowers_for_accelerators() -> None:
    network = NETWORKS["orthogonal"]
    run, data = program(network, 1), (network, _inputs(network, 1.0, 0.5, None))
    seed = jax.ShapeDtypeStruct((), np.uint32)
    start = jax.jit(_lanczos.start, static_argnames=("program", "room")).trace(seed, seed, data, run, 4)
    start.lower(lowering_platforms=("cuda", "tpu"))
    state = jax.eval_shape(lambda s: _lanczos.start(s, s, data, run, 4)[0], seed)
    step = jax.jit(_lanczos.step, static_argnames="program").trace(seed, seed, state, network, run)
    step.lower(lowering_platforms=("cuda", "tpu"))
