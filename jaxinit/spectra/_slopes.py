"""The law of phi'(z)^2, z ~ N(0, q), as atoms and narrow uniform cells.

Free probability asks for E[1 / (y - phi'^2)] at complex y that come close to the support of phi'^2, where a
quadrature of point masses has poles of its own. A cell is a uniform law with the weight, mean and variance of
a piece of phi'^2: its transform is a logarithm, analytic up to the real axis, and the whole is of fourth order
in the width of the pieces away from it.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from jaxinit.activations import Activation
from jaxinit.activations._host import evaluate
from jaxinit.activations._quadrature import REACH, legendre, panel_edges

_WIDTH, _PER_PANEL, _ORDER = 0.025, 8, 5
_FAR = 0.12  # a cell seen under a smaller angle is summed by its series
#: phi'^2 below this share of its maximum is no number in float64 (tanh' = 1 - tanh^2 rounds to 0 beyond 19).
_NOTHING = 1e-30
_NEGLIGIBLE = 1e-19


class SlopeLaw(NamedTuple):
    """phi'^2: masses at points, cells (weight, centre, half width), and moments E[phi'^(2k)], k = 1 .. 8.

    `spread` is Var(phi'^2) / E[phi'^2]^2, without cancellation; `bounded` says whether phi' is.
    """

    masses: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    centres: np.ndarray
    halves: np.ndarray
    moments: np.ndarray
    spread: float
    bounded: bool

    @property
    def largest(self) -> float:
        """The upper end of the support (as far as 10 standard deviations of z reach)."""
        return float(max(np.max(self.points, initial=0.0), np.max(self.centres + self.halves, initial=0.0)))

    @property
    def zero_mass(self) -> float:
        """P(phi' = 0)."""
        return float(self.masses[self.points == 0.0].sum())

    def transform(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """m = E[t / (y - t)], 1 + m = E[y / (y - t)] and dm/dy, t = phi'^2, for complex y off the support.

        `y`: (points,), imaginary part positive, or y real and not in the support.
        """
        gap = y[:, None] - self.points[None, :]
        m = (self.masses * self.points / gap).sum(axis=1)
        one_plus = y * (self.masses / gap).sum(axis=1)
        slope = -(self.masses * self.points / gap**2).sum(axis=1)
        if self.weights.size:
            inverse = 1.0 / (y[:, None] - self.centres[None, :])
            x = self.halves * inverse
            square = x * x
            bend = square / 13 + 1 / 11  # arctanh(x) / x - 1, by Horner's scheme
            for odd in (9, 7, 5, 3):
                bend *= square
                bend += 1 / odd
            bend *= square
            near = (np.abs(x.real) > _FAR) | (np.abs(x.imag) > _FAR)
            if near.any():
                bend[near] = np.arctanh(x[near]) / x[near] - 1.0
            mean = inverse * (1.0 + bend)  # the cell's mean of 1 / (y - t)
            total = _sums(mean, self.weights)
            one_plus += y * total
            # t / (y - t) = centre / (y - t) + (t - centre) / (y - t): no cancellation when y is far away.
            m += _sums(mean, self.weights * self.centres) + _sums(bend, self.weights)
            slope += total - y * _sums(inverse * inverse / (1.0 - square), self.weights)
        return m, one_plus, slope

    def merged(self, run: int = 12) -> SlopeLaw:
        """Point masses only, each in the place of `run` neighbouring cells: for y well off the support."""
        if not self.weights.size:
            return self
        start = np.arange(0, self.weights.size, run)
        weights = np.add.reduceat(self.weights, start)
        centres = np.add.reduceat(self.weights * self.centres, start) / weights
        none = np.zeros(0)
        masses, points = np.append(self.masses, weights), np.append(self.points, centres)
        return self._replace(masses=masses, points=points, weights=none, centres=none, halves=none)


def _sums(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`values @ weights`, which for complex values and real weights is far slower in NumPy."""
    return np.einsum("ij,j->i", values, weights)


@functools.lru_cache(maxsize=128)
def slope_law(activation: Activation, q: float) -> SlopeLaw:
    """The law of phi'^2 under N(0, q); q = 0 is the limit q -> 0."""
    scale = math.sqrt(q) if q > 0.0 else 1e-9
    panels = np.concatenate(
        [np.clip(panel_edges(activation, scale) / scale, -REACH, REACH), np.linspace(-REACH, REACH, 9)]
    )
    panels = np.unique(panels)
    parts = [
        np.linspace(a, b, max(_PER_PANEL, math.ceil((b - a) / _WIDTH)), endpoint=False)
        for a, b in itertools.pairwise(panels)
    ]
    ends = np.append(np.concatenate(parts), REACH)
    nodes, rule = legendre(_ORDER)
    half, mid = 0.5 * np.diff(ends), 0.5 * (ends[1:] + ends[:-1])
    z = mid[:, None] + half[:, None] * nodes
    w = half[:, None] * rule * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    w /= w.sum()
    t = np.square(evaluate(activation, scale * z)[1])
    if not np.isfinite(t).all():
        raise ValueError(f"the derivative of {activation!r} is not finite under N(0, {q:g}).")
    t[t <= _NOTHING * t.max()] = 0.0
    if t.max() == 0.0:
        raise ValueError(f"the derivative of {activation!r} vanishes under N(0, {q:g}): its Jacobian is 0.")

    moments = np.asarray([(w * t**k).sum() for k in range(1, 9)])
    spread = float((w * np.square(t / moments[0] - 1.0)).sum())
    weights = w.sum(axis=1)
    centres = (w * t).sum(axis=1) / weights
    halves = np.sqrt(3.0 * (w * np.square(t - centres[:, None])).sum(axis=1) / weights)
    halves = np.minimum(halves, centres)
    flat = halves <= 1e-11 * centres
    masses, points = _grouped(weights[flat], centres[flat])
    kept = ~flat & (weights > _NEGLIGIBLE)
    slopes = np.abs(evaluate(activation, np.asarray([-1e5, -1e4, 1e4, 1e5]))[1])
    bounded = bool(slopes[0] <= 2.0 * slopes[1] + 1.0 and slopes[3] <= 2.0 * slopes[2] + 1.0)
    return SlopeLaw(masses, points, weights[kept], centres[kept], halves[kept], moments, spread, bounded)


def _grouped(weights: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal values (to 1e-10) made one, with the sum of their weights."""
    if not values.size:
        return np.zeros(0), np.zeros(0)
    order = np.argsort(values)
    weights, values = weights[order], values[order]
    start = np.flatnonzero(np.append(True, np.diff(values) > 1e-10 * values[1:]))
    masses = np.add.reduceat(weights, start)
    return masses, np.add.reduceat(weights * values, start) / masses
