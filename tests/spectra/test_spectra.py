"""Spectra of Jacobians: closed forms, exact moments by other routes, the density against the moments."""

import math

import numpy as np
import pytest
from scipy import integrate, special

from jaxinit import activations, records, spectra
from jaxinit.meanfield import fixed_point
from jaxinit.spectra import density, dynamical_isometry, moments
from jaxinit.spectra._slopes import slope_law


def fuss_catalan(depth: int, k: int) -> float:
    return special.binom((depth + 1) * k, k) / (depth * k + 1)


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_linear_gaussian_is_fuss_catalan(depth: int) -> None:
    found = density("identity", depth, 1.0)
    expected = [fuss_catalan(depth, k) for k in range(1, 5)]
    np.testing.assert_allclose(found.normalized_moments, expected, rtol=1e-12)
    np.testing.assert_allclose([found.expectation(k) for k in range(1, 5)], expected, rtol=1e-9)
    np.testing.assert_allclose(found.expectation(0), 1.0, atol=1e-8)
    np.testing.assert_allclose(
        found.log_edge, (depth + 1) * math.log(depth + 1) - depth * math.log(depth), atol=1e-10
    )
    assert not found.atoms


def test_density_of_products_of_gaussians_in_closed_form() -> None:
    """Penson & Zyczkowski 2011, by an angle: lambda = sin^(L+1)((L+1)a) / (sin a sin^L(L a))."""
    depth, sw2 = 4, 1.7
    a = np.linspace(0.02, math.pi / (depth + 1) - 0.02, 25)[::-1]
    sines = np.sin((depth + 1) * a), np.sin(a), np.sin(depth * a)
    x = sines[0] ** (depth + 1) / (sines[1] * sines[2] ** depth)
    rho = sines[1] ** 2 * sines[2] ** (depth - 1) / (math.pi * sines[0] ** depth)
    found = density("identity", depth, sw2, points=sw2**depth * x)
    np.testing.assert_allclose(found.density, rho / sw2**depth, rtol=1e-8)


def test_marchenko_pastur() -> None:
    x = np.linspace(0.05, 3.95, 40)
    found = density("identity", 1, 2.0, points=2.0 * x)
    np.testing.assert_allclose(found.density, np.sqrt((4 - x) / x) / (2 * math.pi) / 2.0, rtol=1e-9)
    assert density("identity", 1, 2.0, points=[8.1, 9.0]).density.tolist() == [0.0, 0.0]


def test_linear_orthogonal_is_one_atom() -> None:
    found = density("identity", 12, 1.0, ensemble="orthogonal")
    assert found.atoms == ((1.0, 1.0),) and found.log_points.size == 0
    assert found.expectation(3) == 1.0 and found.variance == 0.0
    assert density("abs", 5, 1.0, ensemble="orthogonal").atoms == ((1.0, 1.0),)


@pytest.mark.parametrize("ensemble", ["gaussian", "orthogonal"])
def test_relu(ensemble: str) -> None:
    """Half of the singular values are 0; the edges are Fuss-Catalan's, of 2 L or (as projections) L - 1."""
    depth = 5
    found = density("relu", depth, 2.0, ensemble=ensemble)
    assert found.atoms == ((0.0, 0.5),)
    np.testing.assert_allclose(found.mean, 1.0)
    one = 2.0 if ensemble == "gaussian" else 1.0
    np.testing.assert_allclose(found.relative_variance, depth * one, rtol=1e-12)
    # z = (1 + m) / m ((m + 1/2) / (1 + m))^L s^L: stationary in m, by the roots of a polynomial
    m = np.linspace(1e-4, 50.0, 2_000_001)
    z = np.log1p(1 / m) + depth * (np.log((m + 0.5) * 2) - (0 if ensemble == "gaussian" else np.log1p(m)))
    np.testing.assert_allclose(found.log_edge, z.min(), atol=1e-7)


def test_free_projections() -> None:
    """hard_tanh, orthogonal, two layers: D^2 are projections of rank p, and their product is known."""
    q, sw2 = 0.6, 1.3
    p = math.erf(1 / math.sqrt(2 * q))
    found = density("hard_tanh", 2, sw2, 0.0, ensemble="orthogonal", q=q)
    assert len(found.atoms) == 2
    np.testing.assert_allclose(found.atoms, [(0.0, 1 - p), (sw2**2, 2 * p - 1)], rtol=1e-8)
    top = 4 * p * (1 - p)
    assert found.log_points.max() < math.log(top * sw2**2)
    x = top * np.linspace(0.05, 0.95, 11)
    rho = density("hard_tanh", 2, sw2, 0.0, ensemble="orthogonal", q=q, points=sw2**2 * x).density
    expected = np.sqrt(x * (top - x)) / (2 * math.pi * x * (1 - x)) / sw2**2
    np.testing.assert_allclose(rho, expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("activation", "weight", "bias", "ensemble", "depth", "output"),
    [
        ("tanh", 1.76095, 0.05, "gaussian", 8, "activations"),
        ("tanh", 1.76095, 0.05, "orthogonal", 8, "preactivations"),
        ("tanh", 1.05, 5e-4, "orthogonal", 300, "activations"),
        ("prelu", 1.9, 0.0, "orthogonal", 3, "activations"),
        ("relu", 2.0, 0.0, "gaussian", 40, "activations"),
        ("relu", 2.0, 0.0, "gaussian", 3, "preactivations"),
        ("hard_tanh", 1.3, 0.05, "orthogonal", 3, "preactivations"),
        ("gelu", 1.8, 0.1, "gaussian", 4, "activations"),
    ],
)
def test_density_has_the_moments(activation, weight, bias, ensemble, depth, output) -> None:
    found = density(activation, depth, weight, bias, ensemble=ensemble, output=output)
    assert (found.log_density >= 0).all() and (np.diff(found.log_points) > 0).all()
    np.testing.assert_allclose(found.expectation(0), 1.0, atol=1e-6)
    np.testing.assert_allclose(
        [found.expectation(k) for k in (1, 2, 3, 4)], found.normalized_moments, rtol=1e-6
    )
    np.testing.assert_allclose(1 + found.relative_variance, found.normalized_moments[1], rtol=1e-12)


def free_cumulant_moments(mu: list[float], nu: list[float]) -> list[float]:
    """Moments 1 .. 4 of a product of free variables, from their moments, as S = S_a S_b."""
    (a1, a2, a3, a4), (b1, b2, b3, b4) = mu, nu
    s = [s_coefficients([a1, a2, a3, a4]), s_coefficients([b1, b2, b3, b4])]
    product = np.convolve(s[0], s[1])[:4]
    chi = np.convolve(product, [0.0, 1.0])[:5]  # m S(m)
    chi = np.convolve(chi, [1.0, -1.0, 1.0, -1.0, 1.0])[:5]  # / (1 + m)
    return reverted(chi)


def reverted(series: np.ndarray) -> list[float]:
    """Coefficients 1 .. 4 of the compositional inverse, by the explicit formulas."""
    _, a1, a2, a3, a4 = series
    return [
        1 / a1,
        -a2 / a1**3,
        (2 * a2**2 - a1 * a3) / a1**5,
        (5 * a1 * a2 * a3 - a1**2 * a4 - 5 * a2**3) / a1**7,
    ]


def s_coefficients(raw: list[float]) -> np.ndarray:
    chi = np.asarray([0.0, *reverted(np.asarray([0.0, *raw]))])
    return np.convolve(chi[1:], [1.0, 1.0])[:4]


def test_moments_by_explicit_reversion() -> None:
    """tanh, two Gaussian layers, D^2's moments by SciPy's quad: another quadrature, another algebra."""
    q, sw2 = 0.7, 1.6
    raw = [
        integrate.quad(
            lambda z, k=k: np.cosh(math.sqrt(q) * z) ** (-4 * k) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi),
            -12, 12, epsabs=1e-14, limit=200,
        )[0]
        for k in range(1, 5)
    ]  # fmt: skip
    wishart = [1.0, 2.0, 5.0, 14.0]
    layer = free_cumulant_moments(raw, wishart)
    two = np.asarray(free_cumulant_moments(layer, layer)) * sw2 ** (2 * np.arange(1, 5))
    found = moments("tanh", 2, sw2, q=q)
    np.testing.assert_allclose([found.raw(k) for k in range(1, 5)], two, rtol=1e-11)
    without = np.asarray(free_cumulant_moments(layer, wishart)) * sw2 ** (2 * np.arange(1, 5))
    found = moments("tanh", 2, sw2, q=q, output="preactivations")
    np.testing.assert_allclose([found.raw(k) for k in range(1, 5)], without, rtol=1e-11)


@pytest.mark.parametrize(("ensemble", "s1"), [("gaussian", -1.0), ("orthogonal", 0.0)])
def test_mean_and_variance_are_the_papers(ensemble: str, s1: float) -> None:
    point = fixed_point("tanh", 2.0, 0.1)
    found = moments("tanh", 30, 2.0, 0.1, ensemble=ensemble)
    np.testing.assert_allclose(found.log_mean, 30 * math.log(point.chi_1), rtol=1e-11)
    law = slope_law(activations.get("tanh"), point.q)
    ratio = law.moments[1] / law.moments[0] ** 2
    np.testing.assert_allclose(found.relative_variance, 30 * (ratio - 1 - s1), rtol=1e-10)


def test_great_depth_stays_in_range() -> None:
    found = moments("tanh", 10_000, 0.9, 0.05)
    assert found.mean == 0.0 and np.isfinite(found.log_mean) and np.isfinite(found.normalized).all()
    s = density("tanh", 10_000, 1.76095, 0.05)
    assert np.isfinite(s.log_points).all() and s.log_points.min() < -1e5
    np.testing.assert_allclose(s.expectation(0), 1.0, atol=1e-6)
    np.testing.assert_allclose(s.expectation(2), s.normalized_moments[1], rtol=1e-6)


def test_cells_transform_like_the_law() -> None:
    """E[1 / (y - phi'^2)] close to the support, against SciPy's quad."""
    q = 0.57
    law = slope_law(activations.get("tanh"), q)
    for y in (0.4 + 0.05j, 0.02 + 0.002j, 1.01 + 0j, -0.3 + 0j, 30 + 2j):

        def f(z, part, y=y):
            t = np.cosh(math.sqrt(q) * z) ** -4.0
            return getattr(t / (y - t), part) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        exact = sum(
            scale * 2 * integrate.quad(f, 0, 10, args=(part,), limit=2000, epsabs=1e-12)[0]
            for part, scale in (("real", 1), ("imag", 1j))
        )
        m, one_plus, slope = law.transform(np.asarray([y, y * (1 + 1e-6)], complex))
        np.testing.assert_allclose(m[0], exact, rtol=3e-5)
        np.testing.assert_allclose(one_plus, 1 + m, atol=1e-11)
        np.testing.assert_allclose((m[1] - m[0]) / (y * 1e-6), slope[0], rtol=1e-3)


def test_isometry() -> None:
    found = dynamical_isometry("tanh", 100, 1.01, 1e-5, ensemble="orthogonal")
    assert found.status in spectra.STATUS and found.message == spectra.STATUS[found.status]
    assert dynamical_isometry("relu", 60, 1.0).status == "vanishing"
    assert dynamical_isometry("relu", 60, 3.0).status == "exploding"
    assert dynamical_isometry("relu", 60, 2.0).status == "balanced"
    linear = dynamical_isometry("identity", 3, 1.0)
    np.testing.assert_allclose(linear.largest**2, 4**4 / 3**3, rtol=1e-10)
    assert math.isinf(dynamical_isometry("squared_relu", 2, 0.3, q=1.0).largest)
    assert dynamical_isometry("relu", 4, 2.0, ensemble="orthogonal").zero_share == 0.5


def test_record_saves_and_shows_itself(tmp_path) -> None:
    found = density("relu", 3, 2.0)
    back = records.load(found.save(tmp_path / "s.npz"))
    np.testing.assert_array_equal(back.log_density, found.log_density)
    assert back.atoms == found.atoms and back.label == found.label and repr(back) == repr(found)
    assert found.table().row_count >= 5 and len(found.rows()) == found.log_points.size
    assert found.cumulative([-1e6, 50.0]).round(6).tolist() == [0.5, 1.0]
    assert found.singular_value_density.shape == found.singular_values.shape
    chosen = density("relu", 3, 2.0, points=[0.5, 1.0])
    with pytest.raises(ValueError, match="chosen points"):
        chosen.expectation(1)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "depth", lambda: moments("tanh", 0, 1.0)),
        (ValueError, "weight_variance", lambda: moments("tanh", 3, 0.0)),
        (ValueError, "'gaussian' or 'orthogonal'", lambda: moments("tanh", 3, 1.0, ensemble="haar")),
        (ValueError, "'activations' or 'preactivations'", lambda: moments("tanh", 3, 1.0, output="z")),
        (ValueError, r"moments\(...\)` needs moments.*1e\+300", lambda: moments("tanh", 3, 1.0, q=1e300)),
        (ValueError, "at most 2147483647", lambda: moments("tanh", 10**400, 1.0)),
        (ValueError, "at most 8", lambda: moments("tanh", 3, 1.0, order=9)),
        (ValueError, "q=", lambda: density("squared_relu", 3, 3.0, 0.5)),
        (ValueError, "ascending", lambda: density("tanh", 3, 1.5, points=[2.0, 1.0])),
        (ValueError, "positive", lambda: density("tanh", 3, 1.5, points=[0.0, 1.0])),
        (TypeError, "depth", lambda: moments("tanh", 2.5, 1.0)),
    ],
)
def test_bad_arguments(error, text, call) -> None:
    with pytest.raises(error, match=text):
        call()
