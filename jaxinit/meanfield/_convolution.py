"""Convolutional networks of many channels: covariances between places, and the spatial modes that survive.

With circular padding, kernel offsets d of variance share v_d (sum 1) and n channels,

    z_x(i) = sum_d sum_j W_ij(d) phi(z_(x + d)(j)) + b_i,    Var W_ij(d) = sigma_w^2 v_d / n,

the covariance of the places x, y of the pre-activations obeys (Xiao, Bahri, Sohl-Dickstein, Schoenholz & Pennington
2018, "Dynamical isometry and a mean field theory of CNNs")

    S'(x, y) = sigma_w^2 sum_d v_d E[phi(z_(x+d)) phi(z_(y+d))] + sigma_b^2.

What depends on x - y alone passes the sum over d unchanged: lengths and correlations evolve as in a dense network. A
pattern over the common place, cos(2 pi k x / size), is in addition multiplied by the kernel's Fourier transform: all
but the uniform one fade, unless the kernel is one point (`delta_orthogonal`), when every pattern passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit.activations._catalogue import resolve
from jaxinit.meanfield._dual import dual


def conv_modes(kernel: Any, size: int | tuple[int, ...]) -> np.ndarray:
    """How much of each spatial mode one convolution lets pass: |sum_d v_d exp(2 pi i k d / size)|.

    A perturbation of the fixed point with wave number k is multiplied by this times chi a layer, so that its depth
    scale is -1 / log(chi times this) (Xiao et al. 2018).

    Args:
        kernel: an odd width such as 3, or widths such as (3, 3), for equal variances; or the variances
            themselves, an array with the centre in its middle (they are divided by their sum).
        size: places along each axis (circular).

    Returns:
        float64 array of shape `size`, in the order of `numpy.fft.fftfreq`; 1 at wave number 0.

    Example:
        >>> from jaxinit.meanfield import conv_modes
        >>> conv_modes(3, 8).round(3).tolist()
        [1.0, 0.805, 0.333, 0.138, 0.333, 0.138, 0.333, 0.805]
        >>> conv_modes([0, 1, 0], 8).tolist()      # delta-orthogonal: all pass
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    where = "conv_modes"
    sizes = (size,) if isinstance(size, (int, np.integer)) else checks.shape(where, "size", size)
    if not sizes or min(sizes) < 1 or isinstance(size, bool):
        raise checks.bad(where, "size", "a positive integer or several", size)
    variances = _kernel(where, kernel, len(sizes))
    placed = np.zeros(sizes)
    for offset, v in _offsets(variances):
        placed[tuple(o % n for o, n in zip(offset, sizes, strict=True))] += v
    return np.abs(np.fft.fftn(placed))


def convolution(
    activation: Any, covariance: Any, weight_variance: float, bias_variance: float = 0.0, *, kernel: Any = 3
) -> np.ndarray:
    """One convolutional layer's map of the covariance between all places, at many channels.

    Args:
        activation: name, callable or Activation.
        covariance: (size, size) of the pre-activations' places, or (height, width, height, width).
        weight_variance: sigma_w^2, over the whole fan-in: Var W_ij(d) = sigma_w^2 v_d / channels.
        bias_variance: sigma_b^2.
        kernel: as in `conv_modes`.

    Returns:
        The covariance after the layer, float64, of the same shape.

    Raises:
        ValueError: a covariance that is not square, symmetric, of positive diagonal.

    Example:
        >>> import numpy as np
        >>> from jaxinit.meanfield import convolution
        >>> convolution("relu", np.diag([1.0, 1.0, 4.0]), 2.0).round(4).tolist()
        [[2.0, 0.5305, 0.5305], [0.5305, 2.0, 0.5305], [0.5305, 0.5305, 2.0]]
    """
    where = "convolution"
    activation = resolve(where, activation)
    sw2 = float(checks.number(where, "weight_variance", weight_variance, at_least=0.0))
    sb2 = float(checks.number(where, "bias_variance", bias_variance, at_least=0.0))
    s = np.asarray(checks.reals(where, "covariance", covariance), np.float64)
    axes = s.ndim // 2
    rule = "a symmetric (size, size) or (height, width, height, width) array of positive diagonal"
    if s.ndim not in (2, 4) or s.shape[:axes] != s.shape[axes:] or s.size == 0:
        raise checks.bad(where, "covariance", rule, s.shape)
    count = int(np.prod(s.shape[:axes]))
    flat = s.reshape(count, count)
    q = np.diag(flat).copy()
    if not (np.isfinite(flat).all() and (q > 0.0).all() and np.allclose(flat, flat.T, rtol=1e-9, atol=0.0)):
        raise checks.bad(where, "covariance", rule, "another")
    variances = _kernel(where, kernel, axes)
    both = np.sqrt(q[:, None] * q[None, :])
    upper = np.triu_indices(count)
    epsilon = 1.0 - flat / both
    np.fill_diagonal(epsilon, 0.0)
    products = np.zeros_like(flat)
    products[upper] = dual(activation, q[upper[0]], q[upper[1]], epsilon[upper])[0]
    places = (products + np.triu(products, 1).T).reshape(s.shape)
    every = tuple(range(2 * axes))
    out = np.zeros_like(s)
    for offset, v in _offsets(variances):
        out += v * np.roll(places, tuple(-o for o in offset) * 2, axis=every)
    return sw2 * out + sb2


def _kernel(where: str, kernel: Any, axes: int) -> np.ndarray:
    """Variance shares, summing to 1."""
    if isinstance(kernel, (int, np.integer)):
        kernel = (int(kernel),) * axes
    if isinstance(kernel, tuple) and all(isinstance(k, (int, np.integer)) for k in kernel):
        kernel = np.ones(checks.shape(where, "kernel", kernel))
    variances = np.asarray(checks.reals(where, "kernel", kernel), np.float64)
    odd = all(k % 2 == 1 for k in variances.shape)
    if variances.ndim != axes or not odd or not (variances >= 0.0).all() or not variances.sum() > 0.0:
        raise checks.bad(
            where, "kernel", f"odd widths along {axes} axes, or their variances", kernel,
            "Pass 3, (3, 3), or an array such as [0.25, 0.5, 0.25].",
        )  # fmt: skip
    return np.asarray(variances / variances.sum())


def _offsets(variances: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    centre = [n // 2 for n in variances.shape]
    return [
        (tuple(i - m for i, m in zip(index, centre, strict=True)), float(v))
        for index, v in np.ndenumerate(variances)
        if v > 0.0
    ]
