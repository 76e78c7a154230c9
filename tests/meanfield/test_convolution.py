"""Convolutions: wide circular networks drawn out, the dense limit, spatial modes near the fixed point."""

import numpy as np
import pytest

from jaxinit.meanfield import conv_modes, convolution, correlation_map, fixed_point, length_map


def test_what_is_the_same_everywhere_is_a_dense_network():
    s = np.full((5, 5), 0.4) + 0.6 * np.eye(5)
    out = convolution("tanh", s, 1.7, 0.1)
    q = length_map("tanh", 1.0, 1.7, 0.1)
    np.testing.assert_allclose(np.diag(out), q, rtol=1e-11)
    np.testing.assert_allclose(out[0, 1:], q * correlation_map("tanh", 0.4, 1.0, 1.7, 0.1), rtol=1e-10)


def test_against_wide_networks():
    """One layer of 400 channels over 6 places, unequal lengths, an asymmetric kernel."""
    rng = np.random.default_rng(1)
    places, channels, seeds, shares = 6, 400, 60, np.asarray([0.2, 0.5, 0.3])
    root = rng.normal(size=(places, places)) * 0.8
    s = root @ root.T + 0.3 * np.eye(places)
    lower = np.linalg.cholesky(s)
    samples = []
    for _ in range(seeds):
        h = np.tanh(lower @ rng.normal(size=(places, channels)))
        z = sum(
            np.roll(h, -d, axis=0) @ rng.normal(size=(channels, channels)) * np.sqrt(1.5 * v / channels)
            for d, v in zip((-1, 0, 1), shares, strict=True)
        ) + np.sqrt(0.2) * rng.normal(size=channels)
        samples.append(z @ z.T / channels)
    mean, stderr = np.mean(samples, axis=0), np.std(samples, axis=0, ddof=1) / np.sqrt(seeds)
    assert (np.abs(mean - convolution("tanh", s, 1.5, 0.2, kernel=shares)) < 5 * stderr).all()
    wrong = convolution("tanh", s, 1.5, 0.2, kernel=shares[::-1])
    assert (np.abs(mean - wrong) > 5 * stderr).any()


@pytest.mark.parametrize("k", [1, 3])
def test_a_pattern_shrinks_by_chi_times_its_mode(k):
    n, shares = 8, [0.25, 0.5, 0.25]
    point = fixed_point("tanh", 2.25, 0.05)
    s = np.full((n, n), point.q * point.c) + point.q * (1 - point.c) * np.eye(n)
    wave = 1e-6 * np.cos(2 * np.pi * k * np.arange(n) / n)
    bump = np.zeros((n, n))
    for x in range(n):
        bump[x, (x + 2) % n] = bump[(x + 2) % n, x] = wave[x]
    out = convolution("tanh", s + bump, 2.25, 0.05, kernel=shares) - s
    found = np.asarray([out[x, (x + 2) % n] for x in range(n)])
    np.testing.assert_allclose(found, point.chi_c * conv_modes(shares, n)[k] * wave, atol=1e-10)


def test_two_axes():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    s = (root @ root.T + np.eye(6)).reshape(2, 3, 2, 3)
    kernel = np.asarray([[0.0, 0.1, 0.0], [0.2, 0.4, 0.3], [0.0, 0.0, 0.0]])
    out = convolution("relu", s, 2.0, 0.1, kernel=kernel)
    point = convolution("relu", s, 2.0, kernel=(1, 1))
    want = 0.1 + sum(
        v * np.roll(point, (-a, -b, -a, -b), axis=(0, 1, 2, 3))
        for (a, b), v in {(-1, 0): 0.1, (0, -1): 0.2, (0, 0): 0.4, (0, 1): 0.3}.items()
    )
    np.testing.assert_allclose(out, want, rtol=1e-12)
    modes = conv_modes(kernel, (2, 3))
    assert modes.shape == (2, 3) and modes[0, 0] == pytest.approx(1.0) and (modes <= 1 + 1e-12).all()
    np.testing.assert_allclose(
        conv_modes((3, 3), (4, 4)), np.outer(conv_modes(3, 4), conv_modes(3, 4)), atol=1e-12
    )


def test_refusals():
    for bad in (np.ones((2, 3)), np.zeros((2, 2)), np.asarray([[1.0, 0.5], [0.1, 1.0]])):
        with pytest.raises(ValueError, match="symmetric"):
            convolution("tanh", bad, 1.0)
    for bad in (2, (3, 3), [-1.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="odd widths"):
            conv_modes(bad, 8)
