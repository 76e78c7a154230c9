"""Jacobians of simulated networks against the law of infinite width: Kolmogorov's distance.

Counting functions of products of random matrices are rigid, so that width 96 and three seeds come within a few
hundredths; laws of another depth or ensemble do not. The rank of a ReLU network of width n is the least of its
layers' active units, n / 2 - 1.03 sqrt(n) / 2 on average over four layers: more zeros than the law's half, which the
smallest of the others feel too. So ReLU's are compared in the upper half of the law's nonzero part.
"""

import numpy as np
import pytest

import jaxinit as ji
from jaxinit.meanfield import critical
from jaxinit.records import Spectrum
from jaxinit.spectra import density

WIDTH, DEPTH, SEEDS, BOUND = 96, 5, 3, 0.04
BIAS = 0.05
EDGE = critical("tanh", BIAS)[0]
CASES = {
    "tanh gaussian": ("tanh", EDGE.weight_variance, BIAS, "gaussian"),
    "tanh orthogonal": ("tanh", EDGE.weight_variance, BIAS, "orthogonal"),
    "relu gaussian": ("relu", 2.0, 0.0, "gaussian"),
    "relu orthogonal": ("relu", 2.0, 0.0, "orthogonal"),
}


def law(name: str, depth: int = DEPTH) -> Spectrum:
    activation, weight, bias, ensemble = CASES[name]
    return density(activation, depth, weight, bias, ensemble=ensemble, output="preactivations")


def sampled(name: str) -> np.ndarray:
    """log s^2, seeds x width."""
    activation, weight, bias, ensemble = CASES[name]
    network = ji.Network(
        DEPTH, WIDTH, activation, weight_variance=weight, bias_variance=bias, ensemble=ensemble
    )
    q = (EDGE.q - BIAS) / EDGE.weight_variance
    run = ji.simulate(
        network, SEEDS, q=q, backward=False, record=["second_moment"], jacobian=True, root=20261122
    )
    return 2.0 * run.extra["jacobian_log_singular_values"]


def distance(x: np.ndarray, spectrum: Spectrum) -> float:
    """Kolmogorov's, over the values that rank above the law's atom at 0 and half of the rest."""
    x = np.sort(x.ravel())
    zero = sum(mass for place, mass in spectrum.atoms if place == 0.0)
    below, rank = spectrum.cumulative(x), np.arange(len(x)) / len(x)
    seen = rank >= (0.5 * (1 + zero) if zero else 0.0)
    return float(max(np.abs(below - rank)[seen].max(), np.abs(below - rank - 1 / len(x))[seen].max()))


@pytest.mark.parametrize("name", CASES)
def test_singular_values(name: str) -> None:
    x = sampled(name)
    assert distance(x, law(name)) < BOUND
    zeros = np.mean(x < x.max() - 2 * np.log(1e13))
    if name.startswith("relu"):
        spread = 0.5 / np.sqrt(WIDTH)
        assert abs(zeros - 0.5 - 1.03 * spread) < 5 * 0.7 * spread / np.sqrt(SEEDS)
    else:
        assert zeros == 0
    # twins: the other ensemble, one layer more
    other = name.replace("gaussian", "x").replace("orthogonal", "gaussian").replace("x", "orthogonal")
    assert distance(x, law(other)) > 1.5 * BOUND
    assert distance(x, law(name, 2 * DEPTH)) > 1.5 * BOUND


@pytest.mark.slow
def test_the_distance_falls_as_one_over_the_root_of_width() -> None:
    """ReLU, over all ranks: what is left is the zeros in excess of the law's half, 1.03 / (2 sqrt(n)) of all values on
    average (see the top), with a spread of 0.7 / (2 sqrt(n)) between networks.

    Twin: from the law of twice the depth the distance does not fall.
    """
    for n, seeds in ((64, 96), (256, 48)):
        network = ji.Network(DEPTH, n, "relu", weight_variance=2.0)
        run = ji.simulate(network, seeds, backward=False, record=["second_moment"], jacobian=True)
        x = np.sort(2.0 * run.extra["jacobian_log_singular_values"].ravel())
        rank = (np.arange(len(x)) + 0.5) / len(x)
        some = x > x.max() - 2 * np.log(1e13)  # not zeros, which share one place
        found, other = (
            np.sqrt(n) * np.abs(law("relu gaussian", depth).cumulative(x[some]) - rank[some]).max()
            for depth in (DEPTH, 2 * DEPTH)
        )
        slack = 5 * 0.35 / np.sqrt(seeds)
        assert abs(found - 0.515) < slack, (n, found)
        assert abs(other - 0.515) > slack, (n, other)
