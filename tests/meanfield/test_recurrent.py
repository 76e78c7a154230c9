"""Recurrent networks: maps with an input, where they settle, and covariances over time where there are skips."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit.meanfield import (
    correlation_map,
    finite_width,
    fixed_point,
    kernels,
    length_map,
    one_minus_correlation_map,
    propagate,
)
from jaxinit.meanfield._layers import Rule, exact, gradients, tabulated
from jaxinit.meanfield._recurrent import over_time
from jaxinit.network import Network, Residual

READ = {"input_variance": 0.3, "input_correlation": 0.2}


def hermite(f, c, q):
    """E[f(u) f(v)], by a quadrature of its own."""
    x, w = np.polynomial.hermite_e.hermegauss(120)
    u, v = x[:, None], c * x[:, None] + math.sqrt(1 - c * c) * x
    return float(w @ (f(math.sqrt(q) * u) * f(math.sqrt(q) * v)) @ w / (2 * math.pi))


def test_maps_with_an_input():
    q = length_map("tanh", 0.5, 1.2, 0.1, input_variance=0.3)
    np.testing.assert_allclose(q, 1.2 * hermite(np.tanh, 1.0, 0.5) + 0.4, rtol=1e-9)
    c = correlation_map("tanh", 0.4, 0.5, 1.2, 0.1, **READ)
    np.testing.assert_allclose(c, (1.2 * hermite(np.tanh, 0.4, 0.5) + 0.1 + 0.3 * 0.2) / q, rtol=1e-9)
    epsilon = one_minus_correlation_map("tanh", 1e-12, 0.5, 1.2, 0.1, input_variance=0.3)
    assert 0 < epsilon < 1e-12
    about = [
        correlation_map("tanh", 0.4, 0.5, 1.2, 0.1, **READ | {"input_variance": v}) for v in (0.299, 0.301)
    ]

    @jax.value_and_grad
    def traced(v):
        return correlation_map("tanh", 0.4, 0.5, 1.2, 0.1, **READ | {"input_variance": v})

    value, slope = jax.jit(traced)(jnp.float32(0.3))
    np.testing.assert_allclose(value, c, rtol=2e-6)
    np.testing.assert_allclose(slope, (about[1] - about[0]) / 0.002, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "sw2", "sb2", "v", "c_x"),
    [
        ("tanh", 1.0, 0.0, 0.1, 0.0), ("tanh", 2.5, 0.1, 0.3, 0.5), ("tanh", 1.0, 0.0, 0.1, -0.9),
        ("tanh", 1.0, 0.0, 0.1, -1.0), ("tanh", 0.5, 0.1, 0.3, 1 - 1e-9), ("relu", 1.5, 0.0, 0.3, -1.0),
    ],
)  # fmt: skip
def test_where_a_network_that_reads_settles(name, sw2, sb2, v, c_x):
    """Its maps leave it there, and come nearer from elsewhere."""
    read = {"input_variance": v, "input_correlation": c_x}
    point = fixed_point(name, sw2, sb2, **read)
    np.testing.assert_allclose(length_map(name, point.q, sw2, sb2, input_variance=v), point.q, rtol=1e-11)

    def step(epsilon):
        return one_minus_correlation_map(name, min(epsilon, 2.0), point.q, sw2, sb2, **read)

    there, near = step(point.one_minus_c), step(0.999 * point.one_minus_c)
    np.testing.assert_allclose(there, point.one_minus_c, rtol=1e-9)
    np.testing.assert_allclose(point.chi_c, (there - near) / (0.001 * point.one_minus_c), rtol=2e-3)
    np.testing.assert_allclose(point.xi_c, -1 / math.log(point.chi_c), rtol=1e-12)
    epsilon = 0.7
    for _ in range(6):
        epsilon = step(epsilon)
    assert abs(epsilon - point.one_minus_c) < 0.3 * abs(0.7 - point.one_minus_c)


def test_the_same_sequences_are_as_a_bias():
    assert fixed_point("tanh", 2.5, 0.1, input_variance=0.2) == fixed_point("tanh", 2.5, 0.1 + 0.2)
    assert fixed_point("tanh", 2.5, 0.3, input_variance=0.2, input_correlation=0.999).c < 1


def network(**changes):
    return Network(**{"depth": 6, "width": 9, "activation": "tanh", "weight_variance": 1.5, "tied": True,
                      "bias_variance": 0.1, **changes})  # fmt: skip


def test_a_driven_network_is_its_maps_composed():
    run = propagate(network(input_weight_variance=0.7, input_width=4), q=1.3, correlation=0.2)
    v = 0.7 * 1.3
    q, c = v + 0.1, (0.2 * v + 0.1) / (v + 0.1)
    for t in range(6):
        np.testing.assert_allclose(run.second_moment.mean[t], q, rtol=1e-12)
        np.testing.assert_allclose(run.correlation.mean[t], c, rtol=1e-11)
        c = correlation_map("tanh", c, q, 1.5, 0.1, input_variance=v, input_correlation=0.2)
        q = length_map("tanh", q, 1.5, 0.1, input_variance=v)
    assert run.weight_grad_norm.mean[0] == 0 < run.weight_grad_norm.mean[1]  # phi(z_0) = 0
    same = propagate(network(bias_variance=0.1 + v, tied=False))
    np.testing.assert_allclose(same.second_moment.mean[5], run.second_moment.mean[5], rtol=0.05)


def test_tabulated_equals_exact():
    activation = network().activation
    rule = Rule(np.full(20, 1.5), 0.1, keep=0.9, read=0.5)
    found, quick = (f(activation, rule, 1.1, 0.8) for f in (exact, tabulated))
    for a, b in zip(found, quick, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("more", [{}, {"keep": 0.8, "normed": True}, {"read": 0.5}, {"post": True}], ids=str)
def test_without_skips_steps_are_as_independent_layers(more):
    """Two recursions: over pairs of steps, and over layers."""
    activation, rule = network(activation="gelu").activation, Rule(np.full(6, 1.5), 0.1, **more)
    layers, back = over_time("propagate", activation, rule, 1.3, 0.6)
    want = exact(activation, rule, 1.3, 0.6)
    for name in Layers_:
        np.testing.assert_allclose(getattr(layers, name), getattr(want, name), rtol=1e-9, err_msg=name)
    for one, two in zip(back, gradients(rule, want), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-9)


Layers_ = ("log_q", "epsilon", "log_slope", "slopes", "log_h", "h_epsilon")


def test_linear_skips_by_the_binomial_theorem():
    """z_t = (alpha + beta W)^(t-1) W x, and powers of a wide matrix are orthogonal, of lengths sigma_w^k.

    The twin, independent layers, is another number.
    """
    skip, sw2 = Residual(0.9, 0.5), 1.3
    given = {"activation": "identity", "weight_variance": sw2, "bias_variance": 0.0, "residual": skip}
    run, apart = (propagate(network(tied=tied, **given), q=2.0, correlation=0.3) for tied in (True, False))
    for t in range(6):
        terms = [(math.comb(t, k) * 0.9 ** (t - k) * 0.5**k) ** 2 * sw2**k for k in range(t + 1)]
        np.testing.assert_allclose(run.second_moment.mean[t, 0], 2 * sw2 * sum(terms), rtol=1e-12)
        np.testing.assert_allclose(run.correlation.mean[t, 0], 0.3, rtol=1e-12)
        # Backward, r (alpha + beta W)^(T-t), the same.
        np.testing.assert_allclose(run.grad_second_moment.mean[5 - t, 0], sum(terms) / 9, rtol=1e-12)
    assert run.second_moment.mean[5, 0] > 2 * apart.second_moment.mean[5, 0]


def test_skips_after_linear_units_by_the_same():
    """x_t = (alpha + beta W) x_(t-1), x_1 = W x: what W reads out is W x_t."""
    skip = Residual(0.9, 0.5, order="post")
    given = {"activation": "identity", "weight_variance": 1.3, "bias_variance": 0.0, "residual": skip}
    run = propagate(network(**given), q=2.0)
    for t in range(1, 6):
        terms = [(math.comb(t - 1, k) * 0.9 ** (t - 1 - k) * 0.5**k) ** 2 * 1.3**k for k in range(t)]
        np.testing.assert_allclose(run.second_moment.mean[t, 0], 2 * 1.3**2 * sum(terms), rtol=1e-12)


def test_bad_calls():
    with pytest.raises(ValueError, match="at most 1000 steps"):
        propagate(network(depth=1001, residual=Residual()))
    for theory in (finite_width, lambda n: kernels(n, np.ones(4))):
        with pytest.raises(ValueError, match="without input_weight_variance"):
            theory(network(input_weight_variance=1.0))
    with pytest.raises(ValueError, match=r"input_variance=.*at least 0"):
        fixed_point("tanh", 1.0, input_variance=-1.0)
    with pytest.raises(ValueError, match=r"input_correlation=.*at most 1"):
        correlation_map("tanh", 0.0, 1.0, 1.0, input_variance=1.0, input_correlation=1.5)
    with pytest.raises(ValueError, match=r"input_variance=.*at least 0"):
        length_map("tanh", 1.0, 1.0, input_variance=-1.0)
