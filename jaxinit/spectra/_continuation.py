"""The generating function of J J^T on the real axis, by continuation through the upper half plane.

On the negative axis z(y) is real and increasing, so that its inverse is a table. From there every point
z = lambda exp(i theta) is turned from theta = pi to theta = 0 together, log y following by Euler's predictor
and Newton's corrector. The subordination function y(z) is analytic in the upper half plane (Belinschi & Bercovici
2007), so that the branch that arrives is the physical one wherever the spectrum has gaps, edges or atoms.
"""

from __future__ import annotations

import math

import numpy as np

from jaxinit.spectra._chain import Chain

_TURNS = 32
_FINE_BELOW = 0.5  # radians at which cells are told from points
_FLOOR = 1e-16  # least argument of y: just above the real axis
_CLOSE = 1e-9
_NOISE = 1e-13
_BLOCK = 24  # points at a time: what fits a cache


class Continuation:
    """Follows points of one Chain; the tables are made once."""

    def __init__(self, c: Chain) -> None:
        self.fine = c
        self.coarse = c._replace(law=c.law.merged())
        centre = math.log(c.law.largest)
        v = np.linspace(centre - 140.0, centre + 60.0, 1600)
        value, _, m = self.coarse.log_z(v + 1j * np.pi)
        good = np.isfinite(value.real) & (m.real < 0.0)
        #: On the negative axis: log(-y), log(-z), and 1 + m = E[|z| / (|z| + s^2)], at least half the share of
        #: the spectrum that lies below |z|.
        self.log_y, self.log_z, self.share = v[good], value.real[good], 1.0 + m.real[good]

    def __call__(self, log_points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log y and m = E[s^2 / (z - s^2)] at z = exp(log_points) + i0."""
        out = np.empty((2, *log_points.shape), complex)
        for start in range(0, log_points.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            out[:, part] = self._block(log_points[part])
        return out[0], out[1]

    def log_density(self, log_points: np.ndarray) -> np.ndarray:
        """lambda rho(lambda)."""
        _, m = self(log_points)
        found = -m.imag / np.pi
        return np.where(found > _NOISE * np.abs(m) ** 2, found, 0.0)  # near an atom m has a pole

    def _block(self, target: np.ndarray) -> np.ndarray:
        out = np.empty((2, *target.shape), complex)
        todo = np.arange(target.size)
        for turns in (_TURNS, 3 * _TURNS, 9 * _TURNS):
            out[0, todo], out[1, todo], arrived = self._turn(target[todo], turns)
            todo = todo[~arrived]
            if not todo.size:
                return out
        raise FloatingPointError(
            f"the spectrum of {self.fine.activation!r} could not be followed to the real axis at log lambda = "
            f"{target[todo[:3]].tolist()}: choose points further from an edge or an atom."
        )

    def _turn(self, target: np.ndarray, turns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log y, m on the positive axis, and which points arrived."""
        u = np.interp(target, self.log_z, self.log_y) + 1j * np.pi
        value, steepness, m = self.coarse.log_z(u)
        for theta in np.pi * np.linspace(1.0, 0.0, turns + 1) ** 4:
            wanted, last = target + 1j * theta, theta == 0.0
            c = self.coarse if theta > _FINE_BELOW else self.fine
            for _ in range(40 if last else 3):
                step = (wanted - value) / steepness
                step *= np.minimum(1.0, 0.5 / np.maximum(np.abs(step), 1e-300))
                u = _above(u + step, theta)
                value, steepness, m = c.log_z(u)
                if np.abs((value - wanted) / steepness).max() < (1e-13 if last else 3e-2 * theta):
                    break
        arrived = np.abs(value - target) <= _CLOSE * np.maximum(1.0, np.abs(target))
        return u, m, arrived & (m.imag <= _CLOSE)


def _above(u: np.ndarray, theta: float) -> np.ndarray:
    """arg y is at least arg z, and less than pi."""
    return u.real + 1j * np.clip(u.imag, max(0.5 * theta, _FLOOR), np.pi)


def top_edge(c: Chain) -> float:
    """log of the largest squared singular value."""
    largest = c.law.largest
    return _edge(c, largest * c.depth * 1e5, largest)


def gap_edge(c: Chain, y: float, up: bool) -> float | None:
    """log of the end of the gap of the spectrum in which the real `y` lies: the upper end if `up`.

    None if y lies in the support of phi'^2: then there is no gap, only a thin tail.
    """
    low = np.append(c.law.points, c.law.centres - c.law.halves)
    high = np.append(c.law.points, c.law.centres + c.law.halves)
    if ((low <= y) & (y <= high)).any():
        return None
    ends = low[low > y] if up else high[high < y]
    if not ends.size:
        return None
    return _edge(c, y, float(ends.min() if up else ends.max()))


def _edge(c: Chain, start: float, end: float) -> float:
    """log z where z(y) of real y first turns back on the way from `start` to `end`, an end of the support."""

    def log_y(x: np.ndarray) -> np.ndarray:  # just above the real axis
        return np.log(end + (start - end) * np.exp(-x)) + 1j * _FLOOR

    reach = math.log(abs(start - end) / max(end, 1e-12 * start)) + 32.0
    x = np.linspace(0.0, max(1.0, reach), 400)
    back = np.flatnonzero(c.log_z(log_y(x))[1].real <= 0.0)
    if not back.size:
        return float(c.log_z(log_y(x[-1:]))[0].real[0])
    before, after = x[max(back[0] - 1, 0)], x[back[0]]
    for _ in range(60):
        middle = 0.5 * (before + after)
        if c.log_z(log_y(np.asarray([middle])))[1].real[0] > 0.0:
            before = middle
        else:
            after = middle
    return float(c.log_z(log_y(np.asarray([before])))[0].real[0])
