"""sampler="radial": lengths alone, against the general sampler by law; chi-squares and coins against SciPy."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import other_law, same_law
from scipy import stats

import jaxinit as ji
from jaxinit.simulate._chi import chi_square, coins, lifted_chi_square
from jaxinit.simulate._radial import STATISTICS

SEEDS = 20_000
NETWORKS = {
    "relu": {"activation": "relu", "weight_variance": 2.0, "width": [5, 7, 4], "input_width": 6},
    "leaky": {
        "activation": ji.activations.get("leaky_relu", negative_slope=0.3),
        "weight_variance": 1.6,
        "width": 5,
    },
    "wide relu": {"activation": "relu", "weight_variance": 2.0, "width": 104, "input_width": 6},
    "wide leaky": {
        "activation": ji.activations.get("leaky_relu", negative_slope=0.3),
        "weight_variance": 1.6,
        "width": 101,
    },
}


def network(**changes: object) -> ji.Network:
    return ji.Network(**{"depth": 3, **changes})  # type: ignore[arg-type]


@cache
def samples(kind: str, sampler: str) -> dict[str, np.ndarray]:
    """Figures of every site, and products that tie the passes together; a dead network's logs are left out."""
    net = network(**NETWORKS[kind])
    n = net.shapes[0][0]
    run = ji.simulate(
        net, np.arange(SEEDS) + (sampler == "radial") * SEEDS, sampler=sampler, keep_seeds=True, batch=500,
        x=np.arange(1.0, n + 1)[None] / n,
    )  # fmt: skip
    out = {}
    for name in ("second_moment", "grad_second_moment", "weight_grad_norm", "zero_fraction", "dead_fraction"):
        flat = run[name].samples.reshape(SEEDS, 3)
        out |= {f"{name} {l + 1}": flat[:, l] for l in range(3)}
    q, g = run.second_moment.samples[:, :, 0], run.grad_second_moment.samples[:, :, 0]
    out["q3 g1"] = q[:, 2] * g[:, 0]
    out["q1 g1"] = q[:, 0] * g[:, 0]
    out["q2 g2 / (1 + g1)"] = q[:, 1] * g[:, 1] / (1 + g[:, 0])
    out["q1 - g3"] = q[:, 0] - g[:, 2]
    return {k: np.round(v, 5) if "fraction" in k else v for k, v in out.items()}


@pytest.mark.parametrize("kind", NETWORKS)
def test_law_is_that_of_the_general_sampler(kind: str) -> None:
    same_law(samples(kind, "radial"), samples(kind, "implicit" if "wide" in kind else "materialized"))


def test_twin_passes_that_are_not_one_network_are_seen() -> None:
    """The right marginals, the gradients of other networks."""
    x = samples("relu", "radial")
    apart = {**x, "q3 g1": x["second_moment 3"] * np.roll(x["grad_second_moment 1"], 1)}
    other_law(apart, samples("relu", "materialized"))


@pytest.mark.parametrize("freedom", [16.0, 17.0, 40.0, 1000.0, 65536.0])
def test_chi_square_is_the_quantile_function(freedom: float) -> None:
    """Entry by entry against SciPy: float32 may add the rounding of a few operations."""
    z = np.linspace(-5.5, 5.5, 2001).astype(np.float32)
    x = np.asarray(chi_square(jnp.asarray(z), jnp.full(z.shape, freedom)), np.float64)
    exact = np.where(
        z < 0, stats.chi2.ppf(stats.norm.cdf(z), freedom), stats.chi2.isf(stats.norm.sf(z), freedom)
    )
    error = np.abs(x / exact - 1)
    assert error[np.abs(z) < 3].max() < 6e-7 and error.max() < 5e-6
    # Over a thousand layers an error of the mean adds up: it must be far below the spread, in the mean.
    assert abs(np.average(np.log(x / exact), weights=stats.norm.pdf(z))) < 3e-8


@pytest.mark.parametrize("freedom", [1.0, 2.0, 3.0, 15.0, 40.0])
def test_chi_square_of_few_degrees_of_freedom(freedom: float) -> None:
    z = jax.random.normal(jax.random.key(1), (40_000,))
    logs = -jax.random.exponential(jax.random.key(2), (8, 40_000))
    x = np.asarray(lifted_chi_square(z, logs, jnp.full(z.shape, freedom)))
    assert stats.kstest(x, "chi2", args=(freedom,)).pvalue > 1e-5
    assert stats.kstest(x, "chi2", args=(1.05 * freedom + 0.05,)).pvalue < 1e-5
    assert (np.asarray(lifted_chi_square(z, logs, jnp.zeros_like(z))) == 0).all()


@pytest.mark.parametrize("n", [1, 2, 6, 7, 99, 100, 101, 1000, 65536])
def test_coins_are_the_quantile_function(n: int) -> None:
    z = np.linspace(-6.5, 6.5, 4001).astype(np.float32)
    k = np.asarray(coins(jnp.asarray(z), n))
    upper = np.where(z < 0, stats.norm.cdf(z), stats.norm.sf(z))
    exact = np.where(z < 0, stats.binom.ppf(upper, n, 0.5), stats.binom.isf(upper, n, 0.5))
    # Between two steps any k is exact; at a step rounding may take the other side.
    assert (k != exact).mean() < 2e-3 and np.abs(k - exact).max() <= 1


@pytest.mark.parametrize("kind", ["relu", "wide leaky"])
def test_moments_over_seeds_are_those_of_the_samples(kind: str) -> None:
    """Reduced layer by layer, with a chunk that is not full, and from the samples of every seed."""
    net = network(**NETWORKS[kind])
    run = ji.simulate(net, 50, sampler="radial", batch=20)
    kept = ji.simulate(net, 50, sampler="radial", batch=20, keep_seeds=True)
    for name in sorted(STATISTICS):
        of = kept[name].samples
        size = 1e-6 * np.abs(of[np.isfinite(of)]).max()
        np.testing.assert_array_equal(run[name].count, 50)
        with np.errstate(invalid="ignore"):  # the logarithms of a dead network
            spread = of.std(0, ddof=1) / np.sqrt(50)
        for field, value in {
            "mean": of.mean(0),
            "stderr": spread,
            "min": of.min(0),
            "max": of.max(0),
        }.items():
            np.testing.assert_allclose(getattr(run[name], field), value, rtol=2e-5, atol=size)


def test_great_depth_and_what_is_recorded() -> None:
    net = ji.Network(3000, 50, "relu", weight_variance=0.02)
    run = ji.simulate(net, 8, sampler="radial", q=4.0)
    assert run.config["sampler"] == "radial (gaussian)" and run.inputs == 1
    slope = np.diff(run.log_second_moment.mean[[100, 2900], 0])[0] / 2800
    assert abs(slope - (np.log(0.01) - 2.5 / 50)) < 0.02  # E log of the ratio is below the log of its mean
    assert np.isfinite(run.log_grad_second_moment.mean).all()


@pytest.mark.parametrize(
    ("net", "more", "words"),
    [
        (network(width=5, activation="tanh", weight_variance=1.0), {}, "linear"),
        (network(width=5, activation="relu", weight_variance=1.0, bias_variance=0.1), {}, "without biases"),
        (
            network(width=5, activation="relu", weight_variance=1.0, ensemble="orthogonal"),
            {},
            "Gaussian weights",
        ),
        (network(width=5, activation="relu", weight_variance=1.0), {"x": np.ones((2, 5))}, "one input"),
        (network(width=5, activation="relu", weight_variance=1.0), {"record": ["kurtosis"]}, "radial"),
    ],
)
def test_what_lengths_cannot_tell_is_refused(net: ji.Network, more: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ji.simulate(net, 2, sampler="radial", **more)


def test_lowers_for_accelerators() -> None:
    from jaxinit.simulate import _simulate

    net = network(**NETWORKS["leaky"])
    program = _simulate._radial(net, 1, _simulate.radial.STATISTICS)
    data = (net, _simulate._inputs(net, 1.0, 0.0, None, alone=True))
    traced = jax.jit(lambda k, d: program(k, d)).trace(jax.random.key(0), data)
    assert traced.lower(lowering_platforms=("cuda", "tpu"))
