"""The recursion over depth: closed forms, exact against tabulated, depth 100,000, variable widths, a Monte Carlo."""

import math

import numpy as np
import pytest

from jaxinit.meanfield import chi, correlation_map, fixed_point, length_map, propagate
from jaxinit.meanfield._propagate import _exact, _tabulated
from jaxinit.network import Network


def test_he_network_by_closed_forms():
    run = propagate(Network(10, 7, "relu", weight_variance=2.0), q=3.0, correlation=0.2)
    np.testing.assert_allclose(run.second_moment.mean, 6.0, rtol=1e-12)
    np.testing.assert_allclose(run.grad_second_moment.mean, 1 / 7, rtol=1e-12)
    c, product = 0.2, [1.0]
    for l in range(10):
        np.testing.assert_allclose(run.correlation.mean[l, 0], c, rtol=1e-12)
        product.append(product[-1] * (1 - math.acos(c) / math.pi))
        theta = math.acos(c)
        c = (math.sin(theta) + (math.pi - theta) * c) / math.pi
    found = run.grad_correlation.mean[:, 0]
    np.testing.assert_allclose(found[0], product[9], rtol=1e-10)
    assert found[-1] == 1.0
    assert run.count == 0 and run.source == "theory" and run.sites[-1] == "10"


def test_recursion_is_the_maps_composed():
    network = Network(6, 5, "gelu", weight_variance=1.7, bias_variance=0.2)
    run = propagate(network, q=0.7, correlation=-0.3)
    q, c = 1.7 * 0.7 + 0.2, (1.7 * 0.7 * -0.3 + 0.2) / (1.7 * 0.7 + 0.2)
    grads = []
    for l in range(6):
        np.testing.assert_allclose(run.second_moment.mean[l], q, rtol=1e-12)
        np.testing.assert_allclose(run.correlation.mean[l], c, rtol=1e-11)
        grads.append((chi("gelu", q, 1.7), chi("gelu", q, 1.7, c)))
        c = correlation_map("gelu", c, q, 1.7, 0.2)
        q = length_map("gelu", q, 1.7, 0.2)
    one, cross = (np.prod([g[i] for g in grads[:-1]]) for i in (0, 1))
    np.testing.assert_allclose(run.grad_second_moment.mean[0], one / 5, rtol=1e-11)
    np.testing.assert_allclose(run.grad_correlation.mean[0], cross / one, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "sw2", "sb2", "epsilon"),
    [
        ("tanh", 1.5, 0.1, 0.4), ("tanh", 1.2, 0.0, 1.3), ("hard_tanh", 1.3, 0.05, 0.4), ("relu", 2.0, 0.0, 0.4),
        ("relu", 1.6, 0.3, 0.4),
    ],
)  # fmt: skip
def test_tabulated_equals_exact(name, sw2, sb2, epsilon):
    activation = Network(1, 1, name, weight_variance=1.0).activation
    exact = _exact(activation, 30, sw2, sb2, 1.1, epsilon)
    quick = _tabulated(activation, 30, sw2, sb2, 1.1, epsilon)
    for a, b in zip(exact, quick, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-6, atol=2e-7)


def test_depth_100_000_in_logarithms():
    run = propagate(Network(100_000, 10, "tanh", weight_variance=0.8, bias_variance=0.0))
    logs = run.log_second_moment.mean[:, 0]
    np.testing.assert_allclose(logs[-1] - logs[-2], math.log(0.8), rtol=1e-6)
    assert logs[-1] < -20_000 and np.isfinite(run.log_grad_second_moment.mean).all()
    chaotic = propagate(Network(100_000, 10, "tanh", weight_variance=3.0, bias_variance=0.1))
    point = fixed_point("tanh", 3.0, 0.1)
    np.testing.assert_allclose(chaotic.correlation.mean[-1, 0], point.c, atol=1e-8)
    np.testing.assert_allclose(chaotic.second_moment.mean[-1, 0], point.q, rtol=1e-10)
    growth = -np.diff(chaotic.log_grad_second_moment.mean[:, 0])
    np.testing.assert_allclose(growth[1000], math.log(point.chi_1), rtol=1e-9)
    exploding = propagate(Network(100_000, 10, "relu", weight_variance=2.5))
    np.testing.assert_allclose(
        exploding.log_second_moment.mean[-1, 0], 1e5 * math.log(1.25) + math.log(2), rtol=1e-6
    )


def test_ordered_correlations_fall_below_any_float():
    run = propagate(Network(3000, 10, "tanh", weight_variance=0.9, bias_variance=0.2))
    point = fixed_point("tanh", 0.9, 0.2)
    e = run.one_minus_correlation.mean[:, 0]
    np.testing.assert_allclose(e[500] / e[499], point.chi_1, rtol=1e-7)
    assert e[-1] == 0.0 or e[-1] < 1e-300


def test_widths_vary():
    widths = (3, 8, 2, 5)
    run = propagate(Network(4, widths, "relu", weight_variance=2.0))
    np.testing.assert_allclose(run.grad_second_moment.mean[:, 0], 1 / np.asarray(widths), rtol=1e-12)


def test_against_wide_numpy_networks():
    """Forward and backward of 40 nets of width 600: within 5 standard errors and a bias of a few over the width."""
    rng = np.random.default_rng(5)
    n, depth, seeds, sw2, sb2 = 600, 4, 40, 2.2, 0.1
    x = np.linalg.qr(rng.normal(size=(n, 2)))[0]
    x = np.stack([x[:, 0], 0.3 * x[:, 0] + math.sqrt(1 - 0.09) * x[:, 1]], axis=1) * math.sqrt(n)
    samples = []
    for _ in range(seeds):
        z, weights, slopes = x, [], []
        h = x
        for _l in range(depth):
            w = rng.normal(size=(n, n)) * math.sqrt(sw2 / n)
            z = w @ h + rng.normal(size=(n, 1)) * math.sqrt(sb2)
            weights.append(w)
            h, slope = np.tanh(z), 1 - np.tanh(z) ** 2
            slopes.append(slope)
        g = np.repeat(rng.normal(size=(n, 1)) / math.sqrt(n), 2, axis=1)
        for l in range(depth - 2, -1, -1):
            g = slopes[l] * (weights[l + 1].T @ g)
        c = z[:, 0] @ z[:, 1] / np.sqrt((z[:, 0] @ z[:, 0]) * (z[:, 1] @ z[:, 1]))
        samples.append([np.mean(z**2), c, np.mean(g[:, 0] ** 2) * n, np.mean(g[:, 0] * g[:, 1]) * n])
    samples = np.asarray(samples)
    run = propagate(Network(depth, n, "tanh", weight_variance=sw2, bias_variance=sb2), correlation=0.3)
    one = run.grad_second_moment.mean[0, 0] * n
    expected = [
        run.second_moment.mean[-1, 0], run.correlation.mean[-1, 0], one, one * run.grad_correlation.mean[0, 0]
    ]  # fmt: skip
    error = samples.std(axis=0, ddof=1) / math.sqrt(seeds)
    assert (np.abs(samples.mean(axis=0) - expected) <= 5 * error + 5 / n).all()
    wrong = propagate(
        Network(depth, n, "tanh", weight_variance=1.1 * sw2, bias_variance=sb2), correlation=0.3
    )
    assert abs(samples[:, 0].mean() - wrong.second_moment.mean[-1, 0]) > 5 * error[0] + 5 / n


def test_refusals():
    with pytest.raises(TypeError, match="Network"):
        propagate("relu")
    with pytest.raises(ValueError, match="weight_variance"):
        propagate(Network(2, 3, "relu", initializer="he_normal"))
    with pytest.raises(ValueError, match="continuous"):
        propagate(Network(2, 3, "threshold_relu", weight_variance=2.0))
