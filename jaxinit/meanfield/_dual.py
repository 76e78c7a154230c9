"""E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for many pairs of Gaussians at once, of any lengths, in float64.

Positively homogeneous activations have closed forms (Cho & Saul 2009, "Kernel methods for deep learning", orders 0
and 1). Others take Mehler's series,

    E[phi(u) phi(v)] = sum_k a_k(q_a) a_k(q_b) c^k,    E[phi' phi'] = sum_k (k + 1) a_(k+1) a_(k+1) c^k / sqrt(q_a q_b)

which needs one set of Hermite coefficients a length, not an integral a pair; where its remainder is not small (kinks,
|c| near 1), the integral in the plane.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from jaxinit.activations import Activation, hermite, moments
from jaxinit.activations._host import evaluate
from jaxinit.meanfield._fixed_point import _homogeneity
from jaxinit.meanfield._maps import host_pair, second_moment, slope_second_moment

_DEGREE = 200
_TOLERANCE = 1e-11


def dual(
    activation: Activation, qa: np.ndarray, qb: np.ndarray, epsilon: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """E[phi(u) phi(v)] and E[phi'(u) phi'(v)], Var u = qa, Var v = qb, correlation 1 - epsilon; equal shapes."""
    shape = qa.shape
    qa, qb, epsilon = (v.reshape(-1) for v in (qa, qb, epsilon))
    epsilon = np.clip(epsilon, 0.0, 2.0)
    if _homogeneity(activation) is not None:
        product, slopes = _arc_cosine(activation, qa, qb, epsilon)
    else:
        product, slopes = _series(activation, qa, qb, epsilon)
    return product.reshape(shape), slopes.reshape(shape)


def _arc_cosine(
    activation: Activation, qa: np.ndarray, qb: np.ndarray, epsilon: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    values, _ = evaluate(activation, np.asarray([-1.0, 1.0]))
    below, above = -float(values[0]), float(values[1])
    c = 1.0 - epsilon
    angle = 2.0 * np.arcsin(np.sqrt(0.5 * epsilon))
    sine = np.sqrt(epsilon * (2.0 - epsilon))
    same, other = (math.pi - angle) / (2.0 * math.pi), angle / (2.0 * math.pi)
    first = sine / (2.0 * math.pi) + c * same, sine / (2.0 * math.pi) - c * other
    squares, cross = below**2 + above**2, 2.0 * below * above
    return np.sqrt(qa * qb) * (squares * first[0] - cross * first[1]), squares * same + cross * other


@functools.lru_cache(maxsize=4096)
def _coefficients(activation: Activation, q: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Hermite coefficients of phi and phi' at length q, and the roots of what they miss of E[phi^2], E[phi'^2]."""
    if q == 0.0:
        phi, slope = evaluate(activation, np.asarray([0.0, -1e-150, 1e-150]))
        a, b = np.zeros(_DEGREE + 1), np.zeros(_DEGREE + 1)
        a[0], b[0] = phi[0], 0.5 * (slope[1] + slope[2])
        return a, b, 0.0, 0.0
    longer = hermite(activation, q, _DEGREE + 1)
    a, b = longer[:-1], np.sqrt(np.arange(1, _DEGREE + 2) / q) * longer[1:]
    m = moments(activation, q)
    missed = (math.sqrt(max(whole - float(v @ v), 0.0)) for v, whole in ((a, m.second), (b, m.slope_second)))
    return a, b, *missed


def _series(
    activation: Activation, qa: np.ndarray, qb: np.ndarray, epsilon: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    lengths, index = np.unique(np.concatenate([qa, qb]), return_inverse=True)
    ia, ib = index[: len(qa)], index[len(qa) :]
    found = [_coefficients(activation, float(q)) for q in lengths]
    a, b = np.stack([f[0] for f in found]), np.stack([f[1] for f in found])
    lost_a, lost_b = np.asarray([f[2] for f in found]), np.asarray([f[3] for f in found])
    c = 1.0 - epsilon
    powers = c[:, None] ** np.arange(_DEGREE + 1)[None, :]
    product = np.sum(a[ia] * a[ib] * powers, axis=1)
    slopes = np.sum(b[ia] * b[ib] * powers, axis=1)
    # What is left out is at most |c|^degree times these (Cauchy-Schwarz); their rounding is 1e-14 of the whole.
    reach = np.abs(c) ** _DEGREE
    size = np.asarray([second_moment(activation, float(q)) for q in lengths])
    slope_size = np.asarray([slope_second_moment(activation, float(q)) for q in lengths])
    rough = lost_a[ia] * lost_a[ib] * reach > _TOLERANCE * np.sqrt(size[ia] * size[ib])
    rough |= lost_b[ia] * lost_b[ib] * reach > _TOLERANCE * np.sqrt(slope_size[ia] * slope_size[ib])
    equal = (epsilon == 0.0) & (ia == ib)
    product[equal], slopes[equal] = size[ia[equal]], slope_size[ia[equal]]
    for i in np.flatnonzero(rough & ~equal & (qa > 0.0) & (qb > 0.0)):
        pair = host_pair(activation, float(qa[i]), float(qb[i]), float(epsilon[i]))
        product[i], slopes[i] = pair.product, pair.slope_product
    return product, slopes
