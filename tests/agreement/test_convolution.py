"""Convolutional networks of many channels: simulation against the map of covariances between places.

Each figure must agree within 5 standard errors plus a bias of order depth / channels, fixed beforehand.
"""

import numpy as np
import pytest

import jaxinit as ji
from jaxinit.network import Spatial

DEPTH, CHANNELS, SEEDS = 4, 256, 64
PLACES = 6
SW2, SB2 = 1.8, 0.1
BIAS = 2.0 * DEPTH / CHANNELS


@pytest.fixture(scope="module")
def run() -> tuple[np.ndarray, ji.Propagation]:
    """Three inputs: one whose places differ in length and angle, and itself moved on by one place and by two.

    A circular network moves with its input, z_b(x) = z_a(x + shift): so the correlation of inputs is that between
    places of one of them, summed over places.
    """
    rng = np.random.default_rng(0)
    common = rng.normal(size=(1, CHANNELS))
    x = (rng.normal(size=(PLACES, CHANNELS)) + common) * np.linspace(0.3, 2.0, PLACES)[:, None]
    inputs = np.stack([np.roll(x, -shift, axis=0) for shift in range(3)])
    network = ji.Network(
        DEPTH, CHANNELS, "tanh", weight_variance=SW2, bias_variance=SB2, spatial=Spatial(PLACES, 3)
    )
    record = ["second_moment", "correlation", "grad_second_moment"]
    return x, ji.simulate(network, SEEDS, x=inputs, sampler="implicit", batch=1, record=record)


def predicted(x: np.ndarray, kernel: object = 3, sw2: float = SW2) -> tuple[np.ndarray, np.ndarray]:
    """(q, correlations with the moved inputs) of every layer."""
    # The first layer reads the input as it is: the map of the identity.
    s = ji.meanfield.convolution("identity", x @ x.T / CHANNELS, sw2, SB2, kernel=kernel)
    layers = [s]
    for _ in range(DEPTH - 1):
        layers.append(ji.meanfield.convolution("tanh", layers[-1], sw2, SB2, kernel=kernel))
    q = np.asarray([np.diag(s).mean() for s in layers])
    moved = [[np.mean([s[i, (i + k) % PLACES] for i in range(PLACES)]) for k in (1, 2, 1)] for s in layers]
    return q, np.asarray(moved) / q[:, None]


def misses(run: ji.Propagation, q: np.ndarray, c: np.ndarray) -> float:
    """How far apart, in units of the tolerance."""
    lengths = np.abs(run.second_moment.mean - q[:, None]) / (5 * run.second_moment.stderr + BIAS * q[:, None])
    angles = np.abs(run.correlation.mean - c) / (5 * run.correlation.stderr + BIAS)
    return float(max(lengths.max(), angles.max()))


def test_covariances_between_places(run: tuple[np.ndarray, ji.Propagation]) -> None:
    x, found = run
    assert found.pairs == ((0, 1), (0, 2), (1, 2))
    assert misses(found, *predicted(x)) < 1


def test_twins_another_kernel_and_variance_are_seen(run: tuple[np.ndarray, ji.Propagation]) -> None:
    x, found = run
    assert misses(found, *predicted(x, kernel=1)) > 1
    assert misses(found, *predicted(x, sw2=1.3 * SW2)) > 1


def test_gradients_of_uniform_inputs_are_those_of_a_dense_network() -> None:
    """What is the same at all places passes a circular kernel unchanged, forward and backward (Xiao et al. 2018)."""
    given = {"weight_variance": SW2, "bias_variance": SB2}
    network = ji.Network(DEPTH, CHANNELS, "tanh", spatial=Spatial(PLACES, 3), **given)
    record = ["second_moment", "correlation", "grad_second_moment", "grad_correlation"]
    found = ji.simulate(network, SEEDS, sampler="implicit", batch=1, record=record)
    theory = ji.meanfield.propagate(ji.Network(DEPTH, CHANNELS, "tanh", **given))

    def far(name: str, want: np.ndarray) -> float:
        size = 1.0 if "correlation" in name else np.abs(want)
        stat = found[name]
        return float(np.max(np.abs(stat.mean - want) / (5 * stat.stderr + BIAS * size)))

    for name in ("second_moment", "correlation", "grad_correlation"):
        assert far(name, theory[name].mean) < 1, name
    back = theory.grad_second_moment.mean / PLACES  # |r| = 1 is shared by so many more outputs
    assert far("grad_second_moment", back) < 1
    assert far("grad_second_moment", 1.15 * back) > 1
