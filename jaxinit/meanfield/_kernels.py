"""The kernels of infinitely wide networks: the covariance of their outputs, and the tangent kernel of training."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jaxinit._core import checks
from jaxinit.activations import Activation, moments
from jaxinit.activations._panels import jumps
from jaxinit.meanfield._dual import dual
from jaxinit.meanfield._layers import Rule
from jaxinit.meanfield._maps import second_moment, value_at_zero
from jaxinit.meanfield._propagate import rule_of
from jaxinit.network import Network, require_fully_connected


class Kernels(NamedTuple):
    """Two float64 arrays, (n1, n2): rows are inputs of x1, columns of x2."""

    nngp: np.ndarray
    ntk: np.ndarray


def kernels(network: Network, x1: Any, x2: Any = None) -> Kernels:
    """The NNGP kernel and the neural tangent kernel of a network, exact at infinite width.

        K^1 = sigma_w^2 x . x' / n_in + sigma_b^2,    K^(l+1) = sigma_w^2 E[phi(u) phi(v)] + sigma_b^2
        T^1 = K^1,                                    T^(l+1) = K^(l+1) + sigma_w^2 E[phi'(u) phi'(v)] T^l

    with (u, v) ~ N(0, K^l). At initialization the outputs f(x) are Gaussian with covariance K^L; under gradient
    descent on the parameters of the NTK parameterization, W = sigma_w omega / sqrt(n_in), b = sigma_b beta with
    omega, beta ~ N(0, 1), they follow T^L (without biases, sigma_b = 0, none is trained). These are the
    conventions of neural-tangents' Dense(W_std=sigma_w, b_std=sigma_b, parameterization="ntk").

    Args:
        network: a Network, with skips and normalization or without. Its widths enter only through the input's.
        x1: (n1, input_width), or one input (input_width,).
        x2: likewise; x1 by default.

    Returns:
        `Kernels(nngp, ntk)`, to about 1e-10.

    Raises:
        ValueError: inputs of another width, a convolutional network, one with dropout, or phi jumps.

    References:
        Lee et al. 2018, "Deep neural networks as Gaussian processes"; Jacot, Gabriel & Hongler 2018, "Neural tangent
        kernel"; Cho & Saul 2009.

    Example:
        >>> import numpy as np, jaxinit as ji
        >>> from jaxinit.meanfield import kernels
        >>> x = np.sqrt(2) * np.eye(2)             # two orthogonal inputs of mean square 1
        >>> nngp, ntk = kernels(ji.Network(2, 2, "relu", weight_variance=2.0), x)
        >>> nngp.round(6).tolist(), ntk.round(6).tolist()
        ([[2.0, 0.63662], [0.63662, 2.0]], [[4.0, 0.63662], [0.63662, 4.0]])
    """
    where = "kernels"
    require_fully_connected(where, network)
    if jumps(network.activation):
        raise checks.bad(where, "network", "of a continuous activation", network.activation.name)
    if network.tied:
        raise checks.bad(
            where, "network", "of independent layers", network,
            "The tangent kernel of tied weights has a term for every pair of layers.",
        )  # fmt: skip
    rule = rule_of(network)
    if rule.keep != 1.0:
        raise checks.bad(
            where, "network", "without dropout", network.dropout, "Its masks are no function of x."
        )
    a = _inputs(network, "x1", x1)
    b = a if x2 is None else _inputs(network, "x2", x2)
    same = (a[:, None, :] == b[None, :, :]).all(axis=2)

    n = a.shape[1]
    stream = _Signal(np.sum(a * a, axis=1) / n, np.sum(b * b, axis=1) / n, a @ b.T / n)
    tangent = np.zeros_like(stream.cross)
    mean_a, mean_b = np.zeros(len(a)), np.zeros(len(b))
    z = stream.scaled(rule.weight_variance[0], rule.bias_variance)
    theta = z.cross.copy()
    for l, sw2 in enumerate(rule.weight_variance[1:].tolist()):
        h, slopes, mu_a, mu_b = _through(network.activation, rule, z, same)
        if not rule.post:
            new = h.scaled(sw2, rule.bias_variance)
            square, branch = rule.alpha**2, rule.beta**2
            theta = square * theta + branch * (new.cross + sw2 * slopes * theta)
            z = z.times(square).plus(new.times(branch))
            continue
        alpha, beta = (rule.alpha, rule.beta) if l else (0.0, 1.0)
        mixed = _Signal(
            2.0 * mean_a * mu_a, 2.0 * mean_b * mu_b, np.outer(mean_a, mu_b) + np.outer(mu_a, mean_b)
        )
        stream = stream.times(alpha**2).plus(mixed.times(alpha * beta)).plus(h.times(beta**2))
        mean_a, mean_b = alpha * mean_a + beta * mu_a, alpha * mean_b + beta * mu_b
        tangent = alpha**2 * tangent + beta**2 * slopes * theta
        z = stream.scaled(sw2, rule.bias_variance)
        theta = z.cross + sw2 * tangent
    return Kernels(z.cross, theta)


class _Signal(NamedTuple):
    """Mean squares of the inputs of each side, and their mean products."""

    a: np.ndarray
    b: np.ndarray
    cross: np.ndarray

    def times(self, factor: float) -> _Signal:
        return _Signal(factor * self.a, factor * self.b, factor * self.cross)

    def plus(self, other: _Signal) -> _Signal:
        return _Signal(self.a + other.a, self.b + other.b, self.cross + other.cross)

    def scaled(self, weight_variance: float, bias_variance: float) -> _Signal:
        bias = np.asarray(bias_variance)
        return self.times(weight_variance).plus(_Signal(bias, bias, bias))


def _through(
    activation: Activation, rule: Rule, z: _Signal, same: np.ndarray
) -> tuple[_Signal, np.ndarray, np.ndarray, np.ndarray]:
    """The signal after phi (of the normalized z), E[phi' phi'] with respect to z, and E[phi] of each side."""
    both = np.sqrt(z.a[:, None] * z.b[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        epsilon = np.where(same, 0.0, np.where(both > 0.0, 1.0 - z.cross / both, 1.0))
    qa, qb = (np.ones_like(v) if rule.normed else v for v in (z.a, z.b))
    rows, columns = np.broadcast_to(qa[:, None], both.shape), np.broadcast_to(qb[None, :], both.shape)
    cross, slopes = dual(activation, rows, columns, epsilon)
    if rule.normed:
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = slopes / both
    second_a, second_b = (np.asarray([second_moment(activation, v) for v in q.tolist()]) for q in (qa, qb))
    mean_a, mean_b = (np.asarray([_mean(activation, v) for v in q.tolist()]) for q in (qa, qb))
    return _Signal(second_a, second_b, cross), slopes, mean_a, mean_b


def _mean(activation: Activation, q: float) -> float:
    return moments(activation, q).mean if 0.0 < q < math.inf else value_at_zero(activation)


def _inputs(network: Network, name: str, x: Any) -> np.ndarray:
    array = np.asarray(checks.reals("kernels", name, x), np.float64)
    array = array[None, :] if array.ndim == 1 else array
    n = network.shapes[0][0]
    if array.ndim != 2 or array.shape[1] != n:
        raise checks.bad(
            "kernels", name, f"of shape (inputs, input_width) with input_width = {n}", np.shape(x),
            "Set Network(input_width=...) to the length of your inputs.",
        )  # fmt: skip
    if not np.isfinite(array).all():
        raise checks.bad("kernels", name, "finite", "an array with nan or infinite entries")
    return array
