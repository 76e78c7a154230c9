"""Moments, gains and Hermite coefficients against mpmath, SciPy, closed forms and published figures."""

import dataclasses
import math
import threading

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.special

from jaxinit.activations import gain, get, hermite, moments, names, torch_gain

PUBLISHED = {
    "relu": 1.414214, "tanh": 1.592537, "sigmoid": 1.846229, "selu": 1.000000, "elu": 1.245198,
    "gelu": 1.533530, "silu": 1.676532, "mish": 1.486848,
    "softplus": 1.041867, "erf": 1.467167, "sin": 1.520867,
    "squared_relu": 0.816497,
}  # fmt: skip

MPMATH = {
    "tanh": mpmath.tanh,
    "hard_tanh": lambda x: max(mpmath.mpf(-1), min(mpmath.mpf(1), x)),
    "relu6": lambda x: max(mpmath.mpf(0), min(mpmath.mpf(6), x)),
    "gelu": lambda x: x * mpmath.ncdf(x),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "softsign": lambda x: x / (1 + abs(x)),
    "mish": lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
}


def reference_second(name, q):
    """E[phi(x)^2], x ~ N(0, q), by mpmath at 30 digits."""
    with mpmath.workdps(30):
        f, scale = MPMATH[name], mpmath.sqrt(mpmath.mpf(q))
        places = {-12.0, -6.0, -3.0, -1.5, 0.0, 1.5, 3.0, 6.0, 12.0}
        places |= {
            k / float(scale) for k in (-8, -4, -2, -1, -0.5, 0.5, 1, 2, 4, 6, 8) if abs(k / scale) < 12
        }
        total = mpmath.quad(lambda z: f(scale * z) ** 2 * mpmath.npdf(z), sorted(places))
        return float(total)


@pytest.mark.parametrize("name", sorted(MPMATH))
@pytest.mark.parametrize("q", [1e-4, 1.0, 15.0, 1e4])
def test_second_moment_against_mpmath(name, q):
    m = moments(name, q)
    np.testing.assert_allclose(m.second, reference_second(name, q), rtol=1e-12)
    assert m.error < 1e-10


def test_moments_that_do_not_exist_are_not_made_up():
    assert moments(lambda x: jnp.exp(x * x), 0.1).second == pytest.approx(1 / math.sqrt(1 - 0.4), rel=1e-9)
    assert moments(lambda x: jnp.exp(x * x), 1.0).second == math.inf
    for phi in (lambda x: jnp.exp(x * x), lambda x: 1 / x):
        with pytest.raises(ValueError, match=r"inf \(here inf\)"):
            gain(phi)
    with pytest.raises(ValueError, match="nan or infinite at some real numbers"):
        gain(jnp.log)
    rare = moments("soft_shrink", 0.0027)  # phi is 0 within 9.6 standard deviations
    assert 0.0 < rare.second < 1e-20


def test_the_error_estimate_holds_where_rounding_rules():
    """x - tanh x near 0 is all rounding: E[(x^3 / 3 - 2 x^5 / 15)^2] = (5 / 3) q^3 (1 - 5.6 q)."""
    m = moments("tanh_shrink", 1e-8)
    assert 1e-13 < abs(m.second / (5e-24 / 3 * (1 - 5.6e-8)) - 1) < m.error


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_gains(name):
    assert abs(gain(name) - PUBLISHED[name]) < 6e-7


def test_closed_forms():
    for a in (0.0, 0.01, 0.2, -0.5):
        phi = get("leaky_relu", negative_slope=a)
        np.testing.assert_allclose(gain(phi), math.sqrt(2 / (1 + a * a)), rtol=1e-13)
    for q in (0.01, 1.0, 40.0):
        m = moments("erf", q)
        np.testing.assert_allclose(m.second, 2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rtol=1e-12)
        np.testing.assert_allclose(m.slope_second, 4 / math.pi / math.sqrt(1 + 4 * q), rtol=1e-12)
        np.testing.assert_allclose(moments("sin", q).second, -math.expm1(-2 * q) / 2, rtol=1e-12)


def test_growth_holds_the_deltas_of_kinks():
    """d/dq E[phi^2] for hard_tanh: P(|x| < 1), which E[phi'^2 + phi phi''] misses without its deltas."""
    for q in (0.1, 1.0, 7.0):
        m = moments("hard_tanh", q)
        inside = math.erf(1 / math.sqrt(2 * q))
        surface = 2 * math.exp(-0.5 / q) / math.sqrt(2 * math.pi * q)
        np.testing.assert_allclose(m.slope_second, inside, rtol=1e-13)
        np.testing.assert_allclose(m.second_growth, inside - surface, rtol=1e-10)
        assert abs(m.second_growth / inside - 1) > 1e-3  # what leaving the deltas out would give


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu6", "elu", "sigmoid", "threshold_relu"])
def test_growths_are_derivatives(name):
    q, h = 1.3, 1e-5
    lo, hi, m = moments(name, q - h), moments(name, q + h), moments(name, q)
    np.testing.assert_allclose(m.second_growth, (hi.second - lo.second) / (2 * h), rtol=1e-8)
    if name != "threshold_relu":
        np.testing.assert_allclose(
            m.slope_second_growth, (hi.slope_second - lo.slope_second) / (2 * h), rtol=1e-8, atol=1e-10
        )


@pytest.mark.parametrize("name", names())
def test_kinks_are_found_without_being_told(name):
    told = get(name)
    blind = dataclasses.replace(told, kink_points=None)
    assert blind.kinks == told.kinks
    np.testing.assert_allclose(moments(blind, 2.0)[:5], moments(told, 2.0)[:5], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    ("phi", "kinks"),
    [
        (lambda x: jnp.where(x < 1 / 3, x, 2 * x), (1 / 3,)),
        (lambda x: jnp.maximum(x, 0.2 * x), (0.0,)),
        (lambda x: jnp.where(x > 0.7, jnp.square(x - 0.7), 0.0), (0.7,)),
        (lambda x: jnp.sqrt(jnp.abs(x)), (0.0,)),
        (lambda x: jnp.clip(x, -jnp.pi, 2.5), (-math.pi, 2.5)),
        (lambda x: jnp.tanh(50 * x), ()),
    ],
)
def test_kinks_of_callables(phi, kinks):
    found = get(phi).kinks
    assert len(found) == len(kinks)
    np.testing.assert_allclose(found, kinks, atol=1e-11)


def test_steep_callable_against_scipy():
    m = moments(lambda x: jnp.tanh(50 * x + 3) * jnp.where(x > 0.3, x, 0.1), 0.8)

    def f(z):
        x = math.sqrt(0.8) * z
        return (
            (math.tanh(50 * x + 3) * (x if x > 0.3 else 0.1)) ** 2
            * math.exp(-z * z / 2)
            / math.sqrt(2 * math.pi)
        )

    points = [-0.3, -0.1, -0.06, -0.02, 0.1, 0.3 / math.sqrt(0.8)]
    expected, _ = scipy.integrate.quad(f, -11, 11, points=points, limit=500, epsabs=1e-14, epsrel=1e-13)
    np.testing.assert_allclose(m.second, expected, rtol=1e-11)


def test_float32_callable_is_as_good_as_it_can_be():
    m = moments(lambda x: jnp.tanh(x.astype(jnp.float32)), 1.0)
    np.testing.assert_allclose(m.second, moments("tanh", 1.0).second, rtol=1e-6)


def test_jumps_have_no_backward_gain():
    assert moments("threshold_relu").slope_second == math.inf
    np.testing.assert_allclose(moments(jnp.sign).slope_mean, math.sqrt(2 / math.pi), rtol=1e-9)
    with pytest.raises(ValueError, match="phi jumps"):
        gain("threshold_relu", "backward")
    with pytest.raises(ValueError, match="0 < E"):
        gain(lambda x: 0.0 * x)
    with pytest.raises(ValueError, match="'forward' or 'backward'"):
        gain("relu", mode="backwards")
    with pytest.raises(ValueError, match="greater than 0"):
        moments("relu", 0.0)
    with pytest.raises(
        TypeError, match=r"`gain\(activation=...\)` must be an elementwise.*returned float32\[\]"
    ):
        gain(lambda x: jnp.sum(x))


@pytest.mark.parametrize(
    ("name", "q", "degree"), [("tanh", 1.0, 80), ("tanh", 15.0, 900), ("gelu", 2.0, 120)]
)
def test_hermite_parseval(name, q, degree):
    a = hermite(name, q, degree)
    assert a.shape == (degree + 1,)
    np.testing.assert_allclose(np.sum(a * a), moments(name, q).second, rtol=1e-10)


def test_hermite_closed_form():
    """erf: a_k from the arcsine series of E[erf(u) erf(v)] = (2/pi) asin(2 q c / (1 + 2 q))."""
    q = 0.7
    a = hermite("erf", q, 9)
    s = 2 * q / (1 + 2 * q)
    for j in range(5):
        k = 2 * j + 1
        coefficient = scipy.special.comb(2 * j, j) / (4**j * k)
        np.testing.assert_allclose(a[k] ** 2, 2 / math.pi * coefficient * s**k, rtol=1e-11)
        assert abs(a[2 * j]) < 1e-15


def test_torch_gain_is_torchs_to_the_last_bit():
    table = {
        "linear": 1, "conv2d": 1, "conv_transpose3d": 1, "sigmoid": 1, "tanh": 5.0 / 3,
        "relu": math.sqrt(2.0), "selu": 3.0 / 4,
    }  # fmt: skip
    for name, value in table.items():
        assert torch_gain(name) == value
    assert torch_gain("leaky_relu") == math.sqrt(2.0 / (1 + 0.01**2))
    assert torch_gain("leaky_relu", 0.2) == math.sqrt(2.0 / (1 + 0.2**2))
    with pytest.raises(ValueError, match="Or use `gain`"):
        torch_gain("gelu")


def test_float64_whatever_the_context():
    expected = gain("tanh")
    found = []

    @jax.jit
    def traced(x):
        found.append(gain(lambda y: jnp.tanh(y)))
        return x * found[-1]

    traced(jnp.ones(3))
    jax.grad(lambda x: x * gain(lambda y: jnp.tanh(y)))(1.0)
    jax.vmap(lambda x: x * gain(lambda y: jnp.tanh(y)))(jnp.ones(2))
    with jax.enable_x64(True):
        found.append(gain(lambda y: jnp.tanh(y)))
    threads = [threading.Thread(target=lambda: found.append(gain(lambda y: jnp.tanh(y)))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 6 and all(f == expected for f in found)
    assert type(expected) is float
