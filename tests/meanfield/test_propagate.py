"""The recursion over depth: closed forms, exact against tabulated, depth 100,000, variable widths, a Monte Carlo."""

import math

import numpy as np
import pytest
from scipy import special

from jaxinit.meanfield import chi, correlation_map, fixed_point, length_map, propagate
from jaxinit.meanfield._layers import Rule, exact, tabulated
from jaxinit.network import Network, Residual


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
    ("name", "sw2", "sb2", "epsilon", "more"),
    [
        pytest.param("tanh", 1.2, 0.0, 1.3, {}, marks=pytest.mark.slow), ("tanh", 1.5, 0.1, 0.4, {}),
        ("hard_tanh", 1.3, 0.05, 0.4, {}),
        ("relu", 1.6, 0.3, 0.4, {}),
        ("tanh", 1.5, 0.1, 0.4, {"alpha": 0.9, "beta": 0.5, "keep": 0.9}),
        pytest.param(
            "gelu", 1.5, 0.1, 0.4, {"alpha": 0.9, "beta": 0.5, "keep": 0.9, "post": True}, marks=pytest.mark.slow
        ),
        ("gelu", 1.5, 0.1, 0.4, {"alpha": 1.0, "beta": 0.3, "normed": True}),
        ("tanh", 1.5, 0.1, 0.4, {"alpha": 0.8, "beta": 0.6, "normed": True, "post": True}),
    ],
)  # fmt: skip
def test_tabulated_equals_exact(name, sw2, sb2, epsilon, more):
    activation = Network(1, 1, name, weight_variance=1.0).activation
    rule = Rule(np.linspace(sw2, 0.9 * sw2, 20), sb2, **more)
    found, quick = exact(activation, rule, 1.1, epsilon), tabulated(activation, rule, 1.1, epsilon)
    for a, b in zip(found, quick, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-6, atol=2e-7)


@pytest.mark.slow
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
        propagate(Network(2, 3, "relu", initializer="ones"))
    with pytest.raises(ValueError, match="initializer of independent entries"):
        propagate(Network(2, 3, "relu", initializer=lambda key, shape, dtype: None))
    with pytest.raises(ValueError, match="continuous"):
        propagate(Network(2, 3, "threshold_relu", weight_variance=2.0))


def test_an_initializer_enters_by_its_variance():
    widths = (6, 9, 4)
    for init, variances in (("he_normal", (2.0, 2.0, 2.0)), ("glorot_uniform", (1.0, 12 / 15, 18 / 13))):
        run = propagate(Network(3, widths, "relu", initializer=init))
        q = variances[0]
        for l in range(3):
            np.testing.assert_allclose(run.second_moment.mean[l], q, rtol=1e-6)
            q = variances[min(l + 1, 2)] * q / 2
    tall = propagate(Network(2, (4, 8), "relu", initializer="orthogonal"))
    wide = Network(2, (4, 8), "relu", weight_variance=1.0)
    assert tall.second_moment.mean[0, 0] == pytest.approx(1.0) and tall.second_moment.mean[
        1, 0
    ] == pytest.approx(0.25)
    assert propagate(wide).second_moment.mean[1, 0] == pytest.approx(0.5)


def test_residual_relu_by_closed_forms():
    """alpha z + beta W relu(z): lengths and gradients grow by alpha^2 + beta^2 sigma_w^2 / 2 a layer."""
    growth = 0.9**2 + 0.3**2 * 2.4 / 2
    for depth in (6, 200):
        run = propagate(Network(depth, 5, "relu", weight_variance=2.4, residual=Residual(0.9, 0.3)), q=2.0)
        l = np.arange(depth)
        np.testing.assert_allclose(run.second_moment.mean[:, 0], 4.8 * growth**l, rtol=1e-7)
        np.testing.assert_allclose(run.grad_second_moment.mean[:, 1], growth ** l[::-1] / 5, rtol=1e-7)
    post = propagate(
        Network(3, 5, "relu", weight_variance=2.4, residual=Residual(0.9, 0.3, order="post")), correlation=1.0
    )
    # x^1 = relu(z^1), z^1 ~ N(0, 2.4); x^2 = 0.9 x^1 + 0.3 relu(z^2), z^2 ~ N(0, 2.88)
    means = [math.sqrt(v / (2 * math.pi)) for v in (2.4, 2.88)]
    p = 0.81 * 1.2 + 2 * 0.27 * means[0] * means[1] + 0.09 * 1.44
    np.testing.assert_allclose(post.second_moment.mean[:, 0], [2.4, 2.88, 2.4 * p], rtol=1e-12)
    np.testing.assert_allclose(post.correlation.mean, 1.0, rtol=1e-12)
    d2 = 0.09 * 0.5 * 2.4
    d1 = 0.5 * (0.81 * 2.4 + 2.4 * d2)
    np.testing.assert_allclose(post.grad_second_moment.mean[:, 0] * 5, [d1, d2, 1.0], rtol=1e-12)


def test_normalization_forgets_the_length():
    short, long = (
        propagate(Network(5, 8, "tanh", weight_variance=1.3, norm="layer"), q=q, correlation=0.2)
        for q in (0.01, 100)
    )
    np.testing.assert_allclose(short.second_moment.mean[1:], long.second_moment.mean[1:], rtol=1e-12)
    np.testing.assert_allclose(short.correlation.mean, long.correlation.mean, rtol=1e-12)
    assert short.grad_second_moment.mean[0, 0] == pytest.approx(1e4 * long.grad_second_moment.mean[0, 0])


@pytest.mark.parametrize("sw2", [1.0, 1.5, 2.5])
def test_dropout_destroys_the_critical_point(sw2):
    """Schoenholz et al. 2017: two equal inputs part, at any weight variance."""
    run = propagate(
        Network(400, 8, "tanh", weight_variance=sw2, bias_variance=0.05, dropout=0.05), correlation=1.0
    )
    c = run.correlation.mean[:, 0]
    assert c[0] == 1.0 and c[-1] < 0.99 and abs(c[-1] - c[-2]) < 1e-9
    q = run.second_moment.mean[-1, 0]
    product = correlation_map("tanh", c[-1], q, sw2, 0.05) * length_map("tanh", q, sw2, 0.05)
    np.testing.assert_allclose(c[-1], product / q, rtol=1e-7)


def test_silent_units():
    run = propagate(Network(2, 8, "relu", weight_variance=2.0), correlation=0.0)
    np.testing.assert_allclose(run.dead_fraction.mean[0], 0.25, rtol=1e-12)
    np.testing.assert_allclose(run.zero_fraction.mean, 0.5, rtol=1e-12)
    hard = propagate(Network(2, 8, "hard_tanh", weight_variance=2.0), correlation=0.0)
    outside = math.erfc(1 / math.sqrt(2 * 2.0))
    np.testing.assert_allclose(hard.dead_fraction.mean[0], outside**2, rtol=1e-10)
    np.testing.assert_allclose(hard.zero_fraction.mean, 0.0)
    np.testing.assert_allclose(propagate(Network(2, 8, "tanh", weight_variance=2.0)).dead_fraction.mean, 0.0)


def test_weight_gradients_of_equal_inputs():
    """|dL/dW| = 2 |h| |d| when both inputs are the same."""
    run = propagate(Network(3, 50, "relu", weight_variance=2.0), q=3.0, correlation=1.0)
    np.testing.assert_allclose(run.weight_grad_norm.mean, 2 * math.sqrt(50 * 3.0), rtol=1e-10)
    np.testing.assert_allclose(run.update_ratio.mean, 2 * math.sqrt(50 * 3.0 / 100), rtol=1e-10)


def test_the_band_of_a_homogeneous_network_travels_with_it(tmp_path):
    import jaxinit as ji

    run = propagate(Network(20, 30, "relu", weight_variance=2.0))
    run.save(tmp_path / "theory.npz")
    band = ji.load(tmp_path / "theory.npz").extra["finite_width"]
    np.testing.assert_allclose(band.mean, run.second_moment.mean[:, 0], rtol=1e-12)
    assert 0.5 < band.log_std[-1] < 2 and "finite_width" not in propagate(Network(2, 3, "tanh", 1.0)).extra


@pytest.mark.parametrize("depth", [4, 70])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"norm": "layer"},
        {"dropout": 0.3},
        {"residual": Residual(0.0, 0.0)},
        {"residual": Residual(order="post")},
    ],
)
def test_signals_that_are_nothing(depth, more):
    """No input, no weights, opposite inputs: figures that do not exist are nan, and nothing warns."""
    for sw2, q, c in ((1.0, 0.0, 0.5), (0.0, 1.0, 0.5), (1.0, 1.0, -1.0)):
        run = propagate(Network(depth, 4, "relu", weight_variance=sw2, **more), q=q, correlation=c)
        assert run.second_moment.mean[0, 0] == sw2 * q
        if sw2 * q == 0.0:
            left = run.second_moment.mean[1:]
            assert np.isnan(run.correlation.mean).all()
            assert (np.isnan(left) if "norm" in more else left == 0.0).all()
        else:
            assert run.correlation.mean[0, 0] == -1.0


def test_saturated_units():
    """Closed forms: tanh' < 1/100 beyond arcosh 10; flat pieces; and gelu by brute force on a grid of its own."""
    q = 4.0
    tail = math.erfc(math.acosh(10.0) / math.sqrt(2 * q))
    run = propagate(Network(1, 8, "tanh", weight_variance=q))
    np.testing.assert_allclose(run.saturated_fraction.mean, tail, rtol=1e-6)
    np.testing.assert_allclose(
        propagate(Network(1, 8, "hard_tanh", weight_variance=q)).saturated_fraction.mean,
        math.erfc(1 / math.sqrt(2 * q)), rtol=1e-6,
    )  # fmt: skip
    relu = propagate(Network(2, 8, "relu", weight_variance=2.0))
    np.testing.assert_allclose(relu.saturated_fraction.mean, 0.5, rtol=1e-12)
    z = np.linspace(-20, 20, 4_000_001)
    slope = 0.5 * special.erfc(-z / math.sqrt(2)) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    small = np.abs(slope) < 1e-2 * slope.max()
    share = np.sum(small * np.exp(-z * z / (2 * q))) * (z[1] - z[0]) / math.sqrt(2 * math.pi * q)
    found = propagate(Network(1, 8, "gelu", weight_variance=q)).saturated_fraction.mean
    np.testing.assert_allclose(found, share, rtol=1e-4)
    assert np.isnan(propagate(Network(1, 8, "sin", weight_variance=1e4)).saturated_fraction.mean).all()
