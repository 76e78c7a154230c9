"""Exact finite-width laws against the simulated networks: moments, typical values, bands, deaths."""

import dataclasses

import numpy as np
import pytest
from scipy.special import digamma, polygamma
from scipy.stats import binom

import jaxinit as ji
from jaxinit.meanfield import _finite_width as fw

SEEDS = 20_000
NETWORKS = {
    "relu": ji.Network(6, 12, "relu", weight_variance=2.0),
    "leaky": ji.Network(5, 10, "leaky_relu", weight_variance=1.3),
    "linear": ji.Network(4, 8, "identity", weight_variance=0.9),
    "widths vary": ji.Network(4, [9, 14, 7, 11], "relu", weight_variance=1.7, input_width=6),
}


def scores(network: ji.Network, law: fw.FiniteWidth) -> np.ndarray:
    """Differences between law and simulation in standard errors: means, log-means, log-variances."""
    run = ji.simulate(network, SEEDS, q=1.5, keep_seeds=True, record=["second_moment", "grad_second_moment"])
    out = []
    for samples, mean, log_mean, log_std in (
        (run.second_moment.samples[:, :, 0], law.mean, law.log_mean, law.log_std),
        (run.grad_second_moment.samples[:, :, 0], law.grad_mean, law.grad_log_mean, law.grad_log_std),
    ):
        for l in range(network.depth):
            x = samples[:, l]
            out.append((x.mean() - mean[l]) / (x.std() / np.sqrt(SEEDS)))
            y = np.log(x[x > 0])
            out.append((y.mean() - log_mean[l]) / (y.std() / np.sqrt(y.size)))
            square = (y - y.mean()) ** 2
            out.append((square.mean() - log_std[l] ** 2) / (square.std() / np.sqrt(y.size)))
    return np.asarray(out)


@pytest.mark.parametrize("name", NETWORKS)
def test_law_is_that_of_the_simulation(name: str) -> None:
    network = NETWORKS[name]
    assert np.abs(scores(network, fw.finite_width(network, q=1.5))).max() < 5


def test_twin_a_law_of_another_width_is_seen() -> None:
    other = fw.finite_width(ji.Network(6, 16, "relu", weight_variance=2.0), q=1.5)
    assert np.abs(scores(NETWORKS["relu"], other)).max() > 10


def test_twin_a_wrong_spread_of_the_logarithm_is_seen() -> None:
    """Means as they are, the logarithm's standard deviation off by a twentieth."""
    law = fw.finite_width(NETWORKS["relu"], q=1.5)
    off = scores(NETWORKS["relu"], dataclasses.replace(law, log_std=1.05 * law.log_std)).reshape(2, 6, 3)
    assert np.abs(off[0, :, 2]).min() > 5
    assert np.abs(np.delete(off, 2, axis=2)).max() < 5


def test_relative_second_moment_of_he_relu() -> None:
    """E[R^2] = (1 + 5/n)^L for the hidden lengths of He-initialized ReLU networks."""
    n = 20
    law = fw.finite_width(ji.Network(30, n, "relu", weight_variance=2.0))
    read = 1 + 2 / n  # the last, linear product
    np.testing.assert_allclose(1 + (law.std / law.mean) ** 2, read * (1 + 5 / n) ** np.arange(30), rtol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_log_moments_against_digamma(n: int) -> None:
    """Linear: log chi-square. ReLU: a binomial mixture of them."""
    np.testing.assert_allclose(
        fw.log_moments(n, 1.7, 1.0, 1.0),
        (digamma(n / 2) + np.log(2 * 1.7 / n), polygamma(1, n / 2)),
        rtol=1e-9,
    )
    k = np.arange(1, n + 1)
    p = binom.pmf(k, n, 0.5) / (1 - 0.5**n)
    each = digamma(k / 2) + np.log(2 * 2.0 / n)
    mean = p @ each
    np.testing.assert_allclose(
        fw.log_moments(n, 2.0), (mean, p @ (polygamma(1, k / 2) + each**2) - mean**2), rtol=1e-9
    )


def test_death() -> None:
    network = ji.Network(8, 3, "relu", weight_variance=2.0)
    law = fw.finite_width(network)
    np.testing.assert_allclose(law.dead, 1 - (1 - 2.0**-3) ** np.arange(8), rtol=1e-12)
    q = ji.simulate(network, SEEDS, keep_seeds=True, record=["second_moment"]).second_moment.samples[:, -1, 0]
    p = law.dead[-1]
    assert abs((q == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / SEEDS)


@pytest.mark.parametrize(
    "network",
    [
        ji.Network(3, 8, "tanh", weight_variance=1.0),
        ji.Network(3, 8, "relu", weight_variance=1.0, bias_variance=0.1),
        ji.Network(3, 8, "relu", weight_variance=1.0, ensemble="orthogonal"),
        ji.Network(3, 8, "relu", initializer="he"),
    ],
)
def test_other_networks_are_refused(network: ji.Network) -> None:
    with pytest.raises(ValueError, match="homogeneous"):
        fw.finite_width(network)
