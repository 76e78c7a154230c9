"""NNGP and NTK: closed forms, a wide network's own tangent kernel, other routes to the same integrals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit.activations import get
from jaxinit.meanfield import kernels, propagate
from jaxinit.meanfield._dual import dual
from jaxinit.meanfield._pairs import pair
from jaxinit.network import Network, Residual

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5))
Y = RNG.normal(size=(3, 5))


def relu_recursion(x: np.ndarray, y: np.ndarray, depth: int, sw2: float, sb2: float) -> tuple[float, float]:
    """Arc-cosine kernels, written out for one pair (Cho & Saul 2009; Jacot et al. 2018)."""
    n = len(x)
    a, b, k = (sw2 * float(u @ v) / n + sb2 for u, v in ((x, x), (y, y), (x, y)))
    t = k
    for _ in range(depth - 1):
        angle = math.acos(min(1.0, k / math.sqrt(a * b)))
        slope = sw2 * (math.pi - angle) / (2 * math.pi)
        k = (
            sw2 * math.sqrt(a * b) * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / (2 * math.pi)
            + sb2
        )
        a, b = sw2 * a / 2 + sb2, sw2 * b / 2 + sb2
        t = k + slope * t
    return k, t


def test_relu_by_arc_cosines():
    found = kernels(Network(4, 9, "relu", weight_variance=1.7, bias_variance=0.2, input_width=5), X, Y)
    for i, x in enumerate(X):
        for j, y in enumerate(Y):
            np.testing.assert_allclose(
                (found.nngp[i, j], found.ntk[i, j]), relu_recursion(x, y, 4, 1.7, 0.2), rtol=1e-10
            )


def test_erf_by_arc_sines():
    """Williams 1997: E[erf(u) erf(v)] = (2 / pi) asin(2 k / sqrt((1 + 2 a)(1 + 2 b)))."""
    network = Network(2, 9, "erf", weight_variance=1.7, bias_variance=0.2, input_width=5)
    a, b = (1.7 * (v**2).sum(1) / 5 + 0.2 for v in (X, Y))
    k = 1.7 * X @ Y.T / 5 + 0.2
    root = np.sqrt((1 + 2 * a)[:, None] * (1 + 2 * b)[None, :])
    nngp = 1.7 * 2 / np.pi * np.arcsin(2 * k / root) + 0.2
    slope = 4 / np.pi / np.sqrt(root**2 - 4 * k**2)
    found = kernels(network, X, Y)
    np.testing.assert_allclose(found.nngp, nngp, rtol=1e-10)
    np.testing.assert_allclose(found.ntk, nngp + 1.7 * slope * k, rtol=1e-10)


@pytest.mark.parametrize("name", ["tanh", "hard_tanh", "leaky_relu", "gelu", "abs"])
def test_dual_is_the_integral_in_the_plane(name):
    qa, qb = np.asarray([0.3, 2.0, 0.7, 1.5]), np.asarray([0.3, 0.8, 5.0, 1.5])
    epsilon = np.asarray([0.2, 1.4, 1e-6, 2.0])
    found = np.asarray(dual(get(name), qa, qb, epsilon)).T
    for row, a, b, e in zip(found, qa, qb, epsilon, strict=True):
        exact = pair(get(name), a, b, e)
        np.testing.assert_allclose(row, (exact.product, exact.slope_product), rtol=1e-9, atol=1e-11)


def test_kernels_are_symmetric_positive_and_agree_with_propagation():
    network = Network(6, 9, "tanh", weight_variance=1.5, bias_variance=0.1, input_width=5)
    found = kernels(network, X)
    for k in found:
        np.testing.assert_allclose(k, k.T, rtol=1e-12)
        assert np.linalg.eigvalsh(k).min() > 0
    one = X[0] / np.sqrt((X[0] ** 2).mean())
    run = propagate(network)
    np.testing.assert_allclose(kernels(network, one).nngp[0, 0], run.second_moment.mean[-1, 0], rtol=1e-11)


KINDS = {
    "plain": {},
    "pre": {"residual": Residual(0.8, 0.6)},
    "post": {"residual": Residual(0.8, 0.6, order="post")},
    "normed": {"norm": "layer", "residual": Residual(0.8, 0.6)},
}


def tangent_kernel(network: Network, x: np.ndarray, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """<df(x)/dtheta, df(x')/dtheta> of one output of a finite network in the NTK parameterization; over seeds."""
    skip = network.residual
    sw, sb = np.sqrt(network.weight_variance), np.sqrt(network.bias_variance)

    def phi(z: jax.Array) -> jax.Array:
        if network.norm:
            z = (z - z.mean()) / z.std()
        return jnp.tanh(z)

    def f(parameters: list, x: jax.Array) -> jax.Array:
        h, z = x, None
        for l, (w, b) in enumerate(parameters):
            y = jnp.matmul(h, w) * jnp.asarray(sw / np.sqrt(w.shape[0]), x.dtype) + b * jnp.asarray(
                sb, x.dtype
            )
            if skip is not None and skip.order == "pre" and z is not None:
                y = skip.alpha * z + skip.beta * y
            z = y
            if skip is not None and skip.order == "post" and l:
                h = skip.alpha * h + skip.beta * phi(z)
            else:
                h = phi(z)
        return z[0]

    @jax.jit
    def gram(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, (network.depth, 2))
        parameters = [
            (jax.random.normal(keys[l, 0], s), jax.random.normal(keys[l, 1], s[1:]))
            for l, s in enumerate(network.shapes)
        ]
        rows = [jax.tree.leaves(jax.grad(f)(parameters, v)) for v in jnp.asarray(x, jnp.float32)]
        return jnp.asarray(
            [[sum(jnp.sum(a * b) for a, b in zip(r, s, strict=True)) for s in rows] for r in rows]
        )

    samples = np.asarray([gram(jax.random.key(i)) for i in range(seeds)])
    return samples.mean(0), samples.std(0, ddof=1) / np.sqrt(seeds)


@pytest.mark.optimized  # runs for longer than it compiles
@pytest.mark.parametrize("kind", KINDS)
def test_the_tangent_kernel_of_wide_networks(kind):
    n, seeds = 512, 30
    network = Network(3, n, "tanh", weight_variance=1.5, bias_variance=0.3, input_width=5, **KINDS[kind])
    mean, stderr = tangent_kernel(network, X[:2], seeds)
    ntk = kernels(network, X[:2]).ntk
    tolerance = 5 * stderr + 8 / n * np.abs(ntk).max()
    assert (np.abs(mean - ntk) < tolerance).all(), (mean, ntk, tolerance)
    other = kernels(
        Network(3, n, "tanh", weight_variance=1.6, bias_variance=0.3, input_width=5, **KINDS[kind]), X[:2]
    )
    assert (np.abs(mean - other.ntk) > tolerance).any()


def test_refusals():
    network = Network(2, 8, "relu", weight_variance=2.0)
    with pytest.raises(ValueError, match="input_width = 8"):
        kernels(network, X)
    with pytest.raises(ValueError, match="finite"):
        kernels(network, np.full((1, 8), np.nan))
    with pytest.raises(ValueError, match="without dropout"):
        kernels(Network(2, 8, "relu", weight_variance=2.0, dropout=0.1), np.ones(8))
    with pytest.raises(TypeError, match="Network"):
        kernels("relu", X)
