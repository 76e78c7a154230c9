"""What is measured of a model's products, against NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.probe import products

RNG = np.random.default_rng(0)
STACK, HEAD = RNG.normal(size=(3, 4, 4)).astype("f4"), RNG.normal(size=(4, 1)).astype("f4")
X = RNG.normal(size=(1, 4)).astype("f4")


def apply(params: Any, x: Any) -> Any:
    h, _ = jax.lax.scan(lambda h, w: (h @ w, None), x, params["a"])
    return h @ params["b"]


def test_backward_of_a_linear_network() -> None:
    """With one example and one output the random sign does not matter to any length."""
    found = products((lambda key: {"a": jnp.asarray(STACK), "b": jnp.asarray(HEAD)}, apply), (X,))
    figures, norms = jax.jit(found.backward)([STACK, HEAD], {}, (X,), jax.random.key(0))
    signal, slope, signals, slopes = X, HEAD.T, [X], [HEAD.T]
    for w in STACK:
        signal = signal @ w
        signals.append(signal)
    for w in STACK[:0:-1]:
        slope = slope @ w.T
        slopes.insert(0, slope)
    slopes.append(np.ones((1, 1)))
    lengths = [np.linalg.norm(g) for g in slopes]
    np.testing.assert_allclose(np.exp(figures.log_gradient), np.square(lengths), rtol=1e-5)
    values = [*signals[1:], signal @ HEAD]
    np.testing.assert_allclose(figures.mean, [v.mean() for v in values], rtol=1e-5)
    squares = [np.mean(v**2) for v in values]
    np.testing.assert_allclose(np.exp(figures.log_second_moment), squares, rtol=1e-5)
    np.testing.assert_allclose(norms.parameters, [np.linalg.norm(w) for w in [*STACK, HEAD]], rtol=1e-5)
    # dL/dW = x^T g: the length of one row is the product of both.
    gradients = [np.linalg.norm(x) * g for x, g in zip(signals, lengths, strict=True)]
    np.testing.assert_allclose(norms.gradients, gradients, rtol=1e-5)


def test_gradients_from_several_outputs_average_to_the_jacobian() -> None:
    """Of y = x W the gradient at y is r: sum of squares over examples and outputs is their number over n_out."""
    w = RNG.normal(size=(4, 5)).astype("f4")
    found = products((lambda key: {"w": jnp.asarray(w)}, lambda p, x: x @ p["w"]), (np.tile(X, (3, 1)),))
    figures, _ = found.backward([w], {}, (np.tile(X, (3, 1)),), jax.random.key(0))
    np.testing.assert_allclose(np.exp(figures.log_gradient), [3.0], rtol=1e-6)
