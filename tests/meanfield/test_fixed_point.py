"""Fixed points and critical points: published values, consistency, statuses, every branch of the physics."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

from jaxinit.activations import moments
from jaxinit.meanfield import (
    all_fixed_points,
    chi,
    correlation_map,
    critical,
    critical_line,
    fixed_point,
    fixed_point_one_minus_c,
    fixed_point_q,
    length_map,
    one_minus_correlation_map,
)


@pytest.mark.parametrize(
    ("name", "bias", "weight", "q"),
    [
        ("tanh", 0.0025, 1.26009, 0.15369),
        ("tanh", 0.05, 1.76095, 0.57005),
        ("silu", 0.04, 2.82083, 0.68945),
        ("gelu", 0.05, 2.30252, 0.72204),
        ("erf", 0.05, 1.37584, 0.51718),
    ],
)
def test_published_critical_points(name, bias, weight, q):
    points = critical(name, bias)
    assert any(abs(p.weight_variance - weight) < 6e-6 and abs(p.q - q) < 6e-6 for p in points)
    for p in points:
        np.testing.assert_allclose(length_map(name, p.q, p.weight_variance, bias), p.q, rtol=1e-11)
        np.testing.assert_allclose(chi(name, p.q, p.weight_variance), 1.0, rtol=1e-11)


def test_elu_critical_point_against_scipy():
    def second(f, q):
        g = lambda z: f(math.sqrt(q) * z) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # noqa: E731
        return sum(scipy.integrate.quad(g, a, b, epsabs=1e-13)[0] for a, b in ((-12, 0), (0, 12)))

    phi, slope = (lambda x: x if x > 0 else math.expm1(x)), (lambda x: 1.0 if x > 0 else math.exp(x))
    q = scipy.optimize.brentq(lambda q: q - second(phi, q) / second(slope, q) - 0.04, 0.2, 5.0, xtol=1e-13)
    (point,) = [p for p in critical("elu", 0.04) if p.q > 0.1]
    np.testing.assert_allclose([point.q, point.weight_variance], [q, 1 / second(slope, q)], rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "weight", "bias"),
    [
        ("tanh", 2.25, 0.05),
        ("tanh", 16.0, 0.3),
        ("tanh", 0.6, 0.05),
        ("hard_tanh", 3.0, 0.1),
        ("selu", 1.3, 0.1),
        ("sin", 3.0, 0.1),
        ("sigmoid", 10.0, 0.1),
        ("cos", 6.0, 0.1),
    ],
)
def test_fixed_points_are_fixed(name, weight, bias):
    p = fixed_point(name, weight, bias)
    np.testing.assert_allclose(length_map(name, p.q, weight, bias), p.q, rtol=1e-12)
    q = 1.0
    for _ in range(400):
        q = length_map(name, q, weight, bias)
    np.testing.assert_allclose(q, p.q, rtol=1e-10)
    np.testing.assert_allclose(correlation_map(name, p.c, p.q, weight, bias), p.c, atol=1e-11)
    np.testing.assert_allclose(p.chi_1, chi(name, p.q, weight), rtol=1e-12)
    np.testing.assert_allclose(p.chi_c, chi(name, p.q, weight, p.c), rtol=1e-9)
    assert p.stable and p.status == "stable" and p.chi_c < 1.0
    assert p.phase == ("chaotic" if p.chi_1 > 1 else "ordered")
    np.testing.assert_allclose(p.xi_c, -1 / math.log(p.chi_c), rtol=1e-9)
    h = 1e-5 * p.q
    slope = (length_map(name, p.q + h, weight, bias) - length_map(name, p.q - h, weight, bias)) / (2 * h)
    np.testing.assert_allclose(p.chi_q, slope, atol=1e-7)


@pytest.mark.parametrize("excess", [1e-3, 1e-6, 1e-8])
def test_close_to_criticality(excess):
    """1 - c* falls in proportion to chi_1 - 1 for a smooth phi: epsilon = 2 (chi_1 - 1) / (sigma_w^2 q E[phi''^2])."""
    edge = critical("tanh", 0.05)[0]
    p = fixed_point("tanh", edge.weight_variance * (1 + excess), 0.05)
    assert p.phase == "chaotic" and p.chi_1 > 1
    curvature = moments(_sech2, p.q).slope_second
    predicted = 2 * (p.chi_1 - 1) / (edge.weight_variance * p.q * curvature)
    np.testing.assert_allclose(p.one_minus_c, predicted, rtol=max(3 * excess, 1e-5))
    mapped = one_minus_correlation_map("tanh", p.one_minus_c, p.q, edge.weight_variance * (1 + excess), 0.05)
    np.testing.assert_allclose(mapped, p.one_minus_c, rtol=1e-10)


def _sech2(x):
    import jax.numpy as jnp

    return 1 - jnp.square(jnp.tanh(x))


def test_statuses_say_what_happens():
    dead = fixed_point("tanh", 0.9)
    assert (dead.q, dead.status, dead.phase) == (0.0, "zero", "ordered") and math.isnan(dead.c)
    edge = fixed_point("tanh", 1.0)
    assert (edge.q, edge.phase, edge.xi_q) == (0.0, "critical", math.inf)
    he = fixed_point("relu", 2.0, q0=3.0)
    assert (he.q, he.status, he.phase, he.c) == (3.0, "marginal", "critical", 1.0)
    blown = fixed_point("relu", 2.0, 0.1)
    assert (blown.q, blown.status) == (math.inf, "diverges") and "Lower weight_variance" in blown.message
    assert fixed_point("relu", 1.9).status == "zero"
    settled = fixed_point("relu", 1.5, 0.1)
    np.testing.assert_allclose(settled.q, 0.4, rtol=1e-13)
    assert settled.status == "stable" and settled.c == 1.0
    assert fixed_point("threshold_relu", 2.0, 0.1).status == "discontinuous"
    for name, far in (
        ("tanh", 1e300),
        ("sin", 1e6),
    ):  # bounded: no weight variance makes their signal diverge
        unseen = fixed_point(name, far, 0.1)
        assert (unseen.q, unseen.status) == (math.inf, "beyond") and "larger than" in unseen.message


@pytest.mark.parametrize(("name", "bias"), [("gelu", 0.16), ("silu", 0.54)])
def test_bistable_activations(name, bias):
    points = all_fixed_points(name, 1.99, bias)
    assert [p.status for p in points] == ["stable", "unstable", "stable"]
    low, gate, high = (p.q for p in points)
    assert fixed_point(name, 1.99, bias, q0=0.99 * gate).q == low
    assert fixed_point(name, 1.99, bias, q0=1.01 * gate).q == high
    up, down = 1.2 * gate, 0.9 * gate  # critical slowing down: the gate pushes away by less than 1 % a layer
    for _ in range(300):
        up, down = length_map(name, up, 1.99, bias), length_map(name, down, 1.99, bias)
    assert 1.2 * gate < up <= high and low <= down < 0.9 * gate


def test_gelu_diverges_from_large_lengths():
    assert fixed_point("gelu", 2.5, 0.05, q0=5.0).status == "diverges"
    low = fixed_point("gelu", 2.2, 0.01, q0=0.01)
    assert low.status == "stable" and low.q < 1
    assert fixed_point("gelu", 2.2, 0.01, q0=50.0).status == "diverges"


def test_tangent_fixed_points_are_not_missed():
    """Two fixed points born in one interval of the scan: weight variance just above where they meet."""
    pairs = [len(all_fixed_points("gelu", w, 0.16)) for w in np.linspace(1.985, 1.997, 7)]
    assert set(pairs) <= {1, 2, 3} and 3 in pairs


def test_unstable_part_of_gelus_edge():
    assert [p.status for p in critical("gelu", 0.1)] == ["unstable"]
    assert [p.status for p in critical("gelu", 0.3)] == ["stable"]
    by_q = critical("gelu", q=critical("gelu", 0.3)[0].q)[0]
    np.testing.assert_allclose(by_q.bias_variance, 0.3, rtol=1e-10)


def test_critical_of_the_relu_family_and_others():
    assert critical("relu", 0.0)[0].weight_variance == 2.0
    assert critical("relu", 0.0)[0].status == "marginal"
    assert critical("relu", 0.1) == ()
    zero = critical("tanh", 0.0)[0]
    assert (zero.weight_variance, zero.q, zero.status) == (1.0, 0.0, "zero")
    line = critical_line("tanh", [0.0, 0.05, 0.5])
    assert (np.diff(line) > 0).all()
    assert np.isnan(critical_line("relu", [0.1])).all()
    for traced in (fixed_point_q, fixed_point_one_minus_c):
        for bad in (-1.0, math.nan, None, "x"):
            with pytest.raises((ValueError, TypeError), match="weight_variance"):
                traced("tanh", bad)
    with pytest.raises(ValueError, match=r"critical_line\(bias_variances"):
        critical_line("tanh", [0.1, -1.0])
    with pytest.raises(ValueError, match="exactly one"):
        critical("tanh")
    with pytest.raises(ValueError, match="continuous"):
        critical("threshold_relu", 0.1)
    with pytest.raises(ValueError, match="bias variance of -"):
        critical("sigmoid", q=1.0)
