"""Moments of the squared singular values, from the power series of S-transforms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import record
from jaxinit.spectra._chain import Chain, chain


@record
class SpectralMoments:
    """Moments of the squared singular values of a Jacobian.

    Attributes:
        log_mean: natural log of their mean.
        relative_variance: their variance over their squared mean.
        normalized: E[(s^2 / mean)^k] for k = 1, 2, ...
    """

    log_mean: float
    relative_variance: float
    normalized: tuple[float, ...]

    @property
    def mean(self) -> float:
        """E[s^2]; inf or 0 beyond the range of float64 (`log_mean` is not)."""
        return float(np.exp(np.float64(self.log_mean)))

    @property
    def variance(self) -> float:
        """Var(s^2)."""
        return self.relative_variance * self.mean * self.mean

    def raw(self, order: int) -> float:
        """E[s^(2 order)]."""
        return self.normalized[order - 1] * float(np.exp(np.float64(order * self.log_mean)))


def moments(
    activation: Any,
    depth: int,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    ensemble: str = "gaussian",
    output: str = "activations",
    q: float | None = None,
    order: int = 4,
) -> SpectralMoments:
    """Moments of the squared singular values of the Jacobian of a deep, very wide network.

        J = D_L W_L ... D_1 W_1,   D_l = diag(phi'(z^l)),   E[s^2] = chi_1^L,
        Var(s^2) / E[s^2]^2 = L (E[phi'^4] / E[phi'^2]^2 - 1 - s_1),   s_1 = -1 (Gaussian), 0 (orthogonal)

    and higher moments by Lagrange inversion of the S-transform of J J^T. It holds at infinite width (square
    layers of equal width), with the pre-activations of every layer at the fixed point q*.

    Args:
        activation: name, callable or Activation.
        depth: L, at least 1.
        weight_variance: sigma_w^2; orthogonal weights have W^T W = sigma_w^2.
        bias_variance: sigma_b^2.
        ensemble: "gaussian" or "orthogonal".
        output: "activations" for J = d phi(z^L) / dx as above; "preactivations" for dz^L / dx, the output of
            `jaxinit.Network`, which lacks the last D.
        q: mean square of the pre-activations; the fixed point q* by default.
        order: how many moments, 1 to 8.

    Returns:
        `SpectralMoments`, to about 1e-12 relative.

    Raises:
        ValueError, TypeError: an argument breaks its rule, or there is no fixed point.

    References:
        Pennington, Schoenholz & Ganguli 2017, "Resurrecting the sigmoid in deep learning through dynamical isometry";
        2018, "The emergence of spectral universality in deep networks".

    Example:
        >>> from jaxinit.spectra import moments
        >>> linear = moments("identity", 3, 1.0)         # Fuss-Catalan numbers 1, 4, 22, 140
        >>> [round(v, 9) for v in linear.normalized]
        [1.0, 4.0, 22.0, 140.0]
        >>> round(moments("relu", 10, 2.0, ensemble="orthogonal").variance, 9)
        10.0
    """
    where = "moments"
    order = checks.integer(where, "order", order, at_least=1)
    if order > 8:
        raise checks.bad(where, "order", "at most 8", order)
    return of_chain(
        chain(where, activation, depth, weight_variance, bias_variance, ensemble, output, q), order
    )


def of_chain(c: Chain, order: int) -> SpectralMoments:
    """The moments of a Chain: m_k = [m^(k-1)] ((1 + m) / S(m))^k / k."""
    log_s = np.zeros(order)
    if c.slopes:
        log_s += c.slopes * _log_s_transform(c.law.moments[:order])
    log_one_plus = _log_series(_binomial(1, order))
    if c.gaussian:
        log_s -= c.depth * log_one_plus
    normalized = [_exp_series(k * (log_one_plus - log_s))[k - 1] / k for k in range(1, order + 1)]
    if order > 1:
        normalized[1] = 1.0 + c.relative_variance
    return SpectralMoments(c.log_mean, c.relative_variance, tuple(float(v) for v in normalized))


def _binomial(power: int, order: int) -> np.ndarray:
    return np.asarray([float(math.comb(power, k)) for k in range(order)])


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.convolve(a, b)[: len(a)]


def _log_series(a: np.ndarray) -> np.ndarray:
    """log of a power series with a_0 = 1."""
    out = np.zeros_like(a)
    for k in range(1, len(a)):
        out[k] = a[k] - sum(j * out[j] * a[k - j] for j in range(1, k)) / k
    return out


def _exp_series(a: np.ndarray) -> np.ndarray:
    """exp of a power series with a_0 = 0."""
    out = np.zeros_like(a)
    out[0] = 1.0
    for k in range(1, len(a)):
        out[k] = sum(j * a[j] * out[k - j] for j in range(1, k + 1)) / k
    return out


def _log_s_transform(moments: np.ndarray) -> np.ndarray:
    """log(S(m) * mean) as a power series in m, from raw moments: S = (1 + m) / m * inverse of sum m_k w^k."""
    order = len(moments)
    scaled = moments / moments[0] ** np.arange(1, order + 1)
    # w = m v(m), with v the fixed point of v = 1 - sum_{k >= 2} scaled_k m^(k-1) v^k, a coefficient a turn.
    v = np.zeros(order)
    v[0] = 1.0
    for _ in range(order):
        new = np.zeros(order)
        new[0] = 1.0
        power = v
        for k in range(2, order + 1):
            power = _product(power, v)
            new[k - 1 :] -= scaled[k - 1] * power[: order - k + 1]
        v = new
    return _log_series(_product(_binomial(1, order), v))
