"""The maps against closed forms, SciPy's double integrals, and each other."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from jaxinit.activations import hermite
from jaxinit.meanfield import chi, correlation_map, length_map, one_minus_correlation_map


def relu_correlation(c):
    """Cho & Saul 2009: the arc-cosine kernel of degree 1."""
    theta = math.acos(c)
    return (math.sin(theta) + (math.pi - theta) * math.cos(theta)) / math.pi


@pytest.mark.parametrize("c", [-1.0, -0.6, 0.0, 0.3, 0.9, 0.99, 0.999])
def test_relu_and_erf_closed_forms(c):
    for q in (3.7, 1e-9):  # a dying signal is no less bent
        np.testing.assert_allclose(correlation_map("relu", c, q, 2.0), relu_correlation(c), atol=1e-13)
    np.testing.assert_allclose(chi("relu", 3.7, 2.0, c), 1 - math.acos(c) / math.pi, atol=1e-13)
    for qa, qb in ((0.3, 0.3), (15.0, 15.0), (0.2, 3.0)):
        joint = 2 / math.pi * math.asin(2 * c * math.sqrt(qa * qb) / math.sqrt((1 + 2 * qa) * (1 + 2 * qb)))
        lengths = [1.4 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + 0.1 for q in (qa, qb)]
        expected = (1.4 * joint + 0.1) / math.sqrt(lengths[0] * lengths[1])
        np.testing.assert_allclose(correlation_map("erf", c, (qa, qb), 1.4, 0.1), expected, atol=1e-12)


def relu_one_minus(epsilon):
    """1 - C(1 - epsilon) of ReLU for small epsilon: a series in theta = 2 asin(sqrt(epsilon / 2))."""
    theta = 2 * math.asin(math.sqrt(epsilon / 2))
    gap = theta**3 / 3 - theta**5 / 30 + theta**7 / 840  # sin(theta) - theta cos(theta)
    return epsilon - gap / math.pi


@pytest.mark.parametrize("epsilon", [1e-3, 1e-6, 1e-9, 1e-12, 1e-20, 1e-100])
def test_nothing_is_lost_near_one(epsilon):
    found = one_minus_correlation_map("relu", epsilon, 0.7, 2.0)
    np.testing.assert_allclose(found, relu_one_minus(epsilon), rtol=1e-11)
    s = 1.4 / 2.4
    expected = 2 / math.pi * math.asin(s) - 2 / math.pi * math.asin(s * (1 - epsilon)) if epsilon > 1e-4 else (
        2 / math.pi * s / math.sqrt(1 - s * s) * (epsilon - s * s / (1 - s * s) * epsilon**2 / 2)
    )  # fmt: skip
    length = 1.4 * 2 / math.pi * math.asin(s) + 0.1
    found = one_minus_correlation_map("erf", epsilon, 0.7, 1.4, 0.1)
    np.testing.assert_allclose(found, 1.4 * expected / length, rtol=1e-10)


def double_integral(phi, q, c, pieces):
    """E[phi(u) phi(v)] by nested SciPy quad, split at the images of the kinks."""
    scale, rest = math.sqrt(q), math.sqrt(1 - c * c)
    density = lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # noqa: E731

    def inner(x):
        points = sorted({(k / scale - c * x) / rest for k in pieces if abs((k / scale - c * x) / rest) < 9})
        ends = [-9.0, *points, 9.0]
        return sum(
            scipy.integrate.quad(lambda y: phi(scale * (c * x + rest * y)) * density(y), a, b, epsabs=1e-11)[
                0
            ]
            for a, b in itertools.pairwise(ends)
        )

    ends = [-9.0, *sorted(k / scale for k in pieces), 9.0]
    return sum(
        scipy.integrate.quad(lambda x: phi(scale * x) * density(x) * inner(x), a, b, epsabs=1e-9, limit=40)[0]
        for a, b in itertools.pairwise(ends)
    )


@pytest.mark.parametrize(
    ("name", "phi", "kinks", "c"),
    [
        ("hard_tanh", lambda x: max(-1.0, min(1.0, x)), (-1.0, 1.0), 0.6),
        ("elu", lambda x: x if x > 0 else math.expm1(x), (0.0,), -0.7),
        ("relu6", lambda x: max(0.0, min(6.0, x)), (0.0, 6.0), 0.9),
    ],
)
def test_kinked_maps_against_scipy(name, phi, kinks, c):
    q = 4.0
    length = length_map(name, q, 1.0)
    np.testing.assert_allclose(
        correlation_map(name, c, q, 1.0) * length, double_integral(phi, q, c, kinks), rtol=1e-8
    )


@pytest.mark.parametrize(("name", "q"), [("tanh", 1.0), ("gelu", 15.0), ("silu", 2.0), ("mish", 0.4)])
def test_two_routes_agree(name, q):
    """Split panels in the plane, and Mehler's series of one-dimensional integrals."""
    a = hermite(name, q, 400)
    k = np.arange(401)
    for c in (-0.8, 0.2, 0.97):
        np.testing.assert_allclose(
            correlation_map(name, c, q, 1.0), np.sum(a * a * c**k) / np.sum(a * a), rtol=1e-11, atol=1e-12
        )
        slope = np.sum(k[1:] * a[1:] ** 2 * c ** (k[1:] - 1)) / q
        np.testing.assert_allclose(chi(name, q, 1.0, c), slope, rtol=1e-10)


def test_chi_is_the_slope_of_the_map():
    q, h = 1.3, 1e-4
    scale = length_map("relu6", q, 2.0)
    up, down = (correlation_map("relu6", 0.4 + s, q, 2.0) for s in (h, -h))
    np.testing.assert_allclose(chi("relu6", q, 2.0, 0.4), scale * (up - down) / (2 * h) / q, rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["hard_tanh", "gelu"])
def test_traced_maps_equal_host_maps(name, dtype):
    tolerance = 2e-5 if dtype == "float32" else 1e-11
    with jax.enable_x64(dtype == "float64"):
        q = jnp.asarray([0.3, 2.0, 9.0], dtype)
        c = jnp.asarray([-0.4, 0.5, 0.99], dtype)
        lengths = jax.jit(lambda q: length_map(name, q, 1.7, 0.1))(q)
        mapped = jax.jit(lambda c, q: correlation_map(name, c, q, 1.7, 0.1))(c, q)
        slopes = chi(name, q, 1.7, c)
        assert lengths.dtype == mapped.dtype == slopes.dtype == dtype
        for i in range(3):
            qi, ci = float(q[i]), float(c[i])
            np.testing.assert_allclose(lengths[i], length_map(name, qi, 1.7, 0.1), rtol=tolerance)
            np.testing.assert_allclose(mapped[i], correlation_map(name, ci, qi, 1.7, 0.1), atol=tolerance)
            np.testing.assert_allclose(slopes[i], chi(name, qi, 1.7, ci), atol=tolerance)


@pytest.mark.slow
def test_traced_maps_differentiate_across_kinks():
    """d/dq of hard_tanh's length map holds the deltas of phi'', since the panels' ends move with q."""
    from jaxinit.activations import moments

    with jax.enable_x64(True):
        slope = jax.grad(lambda q: length_map("hard_tanh", q, 1.0))(jnp.asarray(1.3))
        np.testing.assert_allclose(slope, moments("hard_tanh", 1.3).second_growth, rtol=1e-10)
        slope = jax.grad(lambda c: correlation_map("hard_tanh", c, 1.3, 2.0))(jnp.asarray(0.4))
        expected = chi("hard_tanh", 1.3, 2.0, 0.4) * 1.3 / length_map("hard_tanh", 1.3, 2.0)
        np.testing.assert_allclose(slope, expected, rtol=1e-9)


def test_zero_lengths_and_refusals():
    assert length_map("relu", 0.0, 2.0, 0.3) == 0.3
    assert length_map("sigmoid", 0.0, 2.0) == 0.5
    assert math.isnan(correlation_map("relu", 0.5, 0.0, 2.0))
    with pytest.raises(ValueError, match="at most 1"):
        correlation_map("relu", 1.5, 1.0, 2.0)
    with pytest.raises(ValueError, match="at least 0"):
        length_map("relu", -1.0, 2.0)
    with pytest.raises(ValueError, match=r"`length_map\(activation=...\)` must be .* Did you mean"):
        length_map("rel", 1.0, 2.0)
    with pytest.raises(ValueError, match=r"`correlation_map\(c=...\)` must be .* at most 1, got \[1.5\]"):
        correlation_map("relu", jnp.asarray([0.5, 1.5]), 1.0, 2.0)
    with pytest.raises(ValueError, match=r"a pair \(q_a, q_b\)"):
        correlation_map("relu", 0.5, [1.0, 2.0, 3.0], 2.0)
    with pytest.raises(TypeError, match=r"`length_map\(q=...\)` must be real numbers"):
        length_map("relu", ["1", "2"], 2.0)


def test_sequences_are_arrays():
    np.testing.assert_allclose(length_map("relu", [1.0, 3.0], 2.0, 0.5), [1.5, 3.5], rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [lambda q: length_map("tanh", q, 1.5, 0.1), lambda q: correlation_map("tanh", 0.5, q, 1.5)],
)
def test_maps_lower_for_accelerators(function):
    q = jax.ShapeDtypeStruct((3,), jnp.float32)
    jax.jit(function).trace(q).lower(lowering_platforms=("cuda", "tpu"))


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_slope_of_the_traced_correlation_map_at_one(name):
    """At c = 1, where the nodes of the integral coincide, the slope is chi_1 q / Q."""
    q, sw2, sb2 = 0.9, 2.0, 0.1
    slope = jax.vmap(jax.grad(lambda c: correlation_map(name, c, q, sw2, sb2)))(jnp.asarray([0.5, 1.0]))
    want = [chi(name, q, sw2, c) * q / length_map(name, q, sw2, sb2) for c in (0.5, 1.0)]
    np.testing.assert_allclose(slope, want, rtol=2e-6)
