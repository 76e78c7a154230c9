"""q* inside compiled programs: values of the exact search, derivatives by differences, transforms, lowering."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit.meanfield import chi, fixed_point, fixed_point_one_minus_c, fixed_point_q

POINTS = [(0.7, 0.1), (1.5, 0.05), (3.0, 0.2)]


@pytest.mark.parametrize("name", ["tanh", "relu", "hard_tanh", pytest.param("gelu", marks=pytest.mark.slow)])
def test_values_and_derivatives(name):
    points = [(w, b) for w, b in POINTS if not (name in ("relu", "gelu") and w > 2)]
    w, b = (np.asarray(v) for v in zip(*points, strict=True))
    with jax.enable_x64(True):
        gradient = jax.jit(
            jax.vmap(jax.value_and_grad(lambda w, b: fixed_point_q(name, w, b), argnums=(0, 1)))
        )
        q, (by_w, by_b) = gradient(w, b)
    h = 1e-5
    for i, (x, y) in enumerate(points):
        np.testing.assert_allclose(q[i], fixed_point(name, x, y).q, rtol=1e-9)
        up, down = (fixed_point(name, x + s * h, y).q for s in (1, -1))
        np.testing.assert_allclose(by_w[i], (up - down) / (2 * h), rtol=1e-6)
        up, down = (fixed_point(name, x, y + s * h).q for s in (1, -1))
        np.testing.assert_allclose(by_b[i], (up - down) / (2 * h), rtol=1e-6)


def test_float32_grids_broadcast():
    w, b = jnp.asarray([[0.7], [1.5]]), jnp.asarray([0.0, 0.05, 0.2])
    q = fixed_point_q("tanh", w, b)
    assert q.shape == (2, 3) and q.dtype == jnp.float32
    want = [[fixed_point("tanh", float(x), float(y)).q for y in b] for x in w[:, 0]]
    np.testing.assert_allclose(q, want, rtol=2e-5)
    assert q[0, 0] == 0.0  # it dies out


def test_divergent_and_marginal():
    assert fixed_point_q("relu", 2.5, 0.1) == jnp.inf and fixed_point_q("gelu", 2.5, 0.1) == jnp.inf
    assert fixed_point_q("relu", 2.0, 0.0, q0=3.0) == 3.0


def test_criticality_by_gradient_descent():
    """chi_1 = 1 at bias 0.05 found by Newton steps through q*: the edge of chaos of tanh."""

    @jax.jit
    def step(w):
        value, slope = jax.value_and_grad(lambda w: chi("tanh", fixed_point_q("tanh", w, 0.05), w))(w)
        return w - (value - 1.0) / slope

    w = jnp.asarray(1.6)
    for _ in range(5):
        w = step(w)
    np.testing.assert_allclose(w, 1.76095, rtol=1e-4)


def test_lowers_for_accelerators():
    f = jax.jit(jax.grad(lambda w, b: fixed_point_q("tanh", w, b), argnums=(0, 1)))
    assert f.trace(1.5, 0.1).lower(lowering_platforms=("cuda", "tpu"))
    g = jax.jit(jax.grad(lambda w: fixed_point_one_minus_c("tanh", w, 0.1, lengths_between=(0.3, 4.0))))
    assert g.trace(2.5).lower(lowering_platforms=("cuda", "tpu"))


def test_refuses_jumps():
    with pytest.raises(ValueError, match="continuous"):
        fixed_point_q("threshold_relu", 1.0)


@pytest.mark.parametrize("name", ["tanh", "hard_tanh"])
def test_correlations_and_their_derivatives(name):
    points = [(0.7, 0.1), (2.6, 0.05), (3.5, 0.2)]
    w, b = (np.asarray(v) for v in zip(*points, strict=True))

    def one(w, b):
        return fixed_point_one_minus_c(name, w, b, lengths_between=(0.3, 4.0))

    with jax.enable_x64(True):
        epsilon, (by_w, by_b) = jax.jit(jax.vmap(jax.value_and_grad(one, argnums=(0, 1))))(w, b)
        outside = fixed_point_one_minus_c(name, np.float64([2.6]), 0.05, lengths_between=(3.0, 4.0))
    epsilon, by_w, by_b = (np.asarray(v) for v in (epsilon, by_w, by_b))
    assert epsilon[0] == by_w[0] == by_b[0] == 0.0  # ordered
    assert np.isnan(outside[0])
    h = 1e-5
    for i, (x, y) in list(enumerate(points))[1:]:
        np.testing.assert_allclose(epsilon[i], fixed_point(name, x, y).one_minus_c, rtol=1e-6)
        up, down = (fixed_point(name, x + s * h, y).one_minus_c for s in (1, -1))
        np.testing.assert_allclose(by_w[i], (up - down) / (2 * h), rtol=1e-5)
        up, down = (fixed_point(name, x, y + s * h).one_minus_c for s in (1, -1))
        np.testing.assert_allclose(by_b[i], (up - down) / (2 * h), rtol=1e-5)


def test_correlations_where_there_are_none_or_one():
    found = fixed_point_one_minus_c("relu", jnp.asarray([1.0, 1.0, 2.5]), jnp.asarray([0.1, 0.0, 0.1]))
    np.testing.assert_array_equal(found, [0.0, np.nan, np.nan])
    with pytest.raises(ValueError, match="lengths_between"):
        fixed_point_one_minus_c("tanh", 2.0, lengths_between=(4.0, 1.0))
    with pytest.raises(TypeError, match="lengths_between"):
        fixed_point_one_minus_c("tanh", 2.0, lengths_between=1.0)
