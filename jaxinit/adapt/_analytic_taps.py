"""Windows on images, also at their edges: taps that meet the signal, its strength there, how alike neighbours are.

A kernel that sees less at an edge makes a weaker value there, which the next kernel meets less often than others. Along
each axis a position p has a strength a_p, its root mean square relative to the mean over positions; axes multiply. For
kernels of independent entries that is exact, a'_p^2 ~ sum over the taps t that are inside of a_{p + t}^2; elementwise
functions take strengths to the power d ln E[phi^2] / d ln q.

Of two positions only whether they agree is known, and of neighbours where between any two positions and one they are:
through a kernel of independent entries covariances at a distance go as they are (Novak et al. 2019), so that neighbours
become more alike than others only where edges make others less so, or where the input has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxinit.adapt._analytic_fields import Atom, atoms_of
from jaxinit.adapt._analytic_pointwise import Applied, Unknown, hermite_of

__all__ = ["Taps"]

_STEP = 0.02


class Taps:
    """One axis of a convolution or of pooling windows.

    Attributes:
        axis: of the result.
        count: taps that meet an entry of the signal, on average over the positions of the result.
        pairs: the sum over pairs of taps of strengths, on average over pairs of positions of the result, in units of
            the mean over such pairs of the signal: [positions agree, taps agree].
        strengths: by position of the result and tap; 0 where the tap meets nothing.

    Args:
        value: the signal: a field, or a function of one.
        axis: of it, one atom or none.
        window, out, stride, low: numbers of taps and of positions of the result, and the padding in front.
        grown, dilation: steps between entries of the signal and between taps.
    """

    def __init__(
        self,
        value: Any,
        axis: Sequence[Atom],
        window: int,
        out: int,
        stride: int,
        low: int,
        grown: int = 1,
        dilation: int = 1,
    ) -> None:
        size = axis[0].size if axis else 1
        profile = axis[0].profile if axis else None
        strength = np.ones(size) if profile is None else _normal(profile ** _response(value))
        at = np.arange(out)[:, None] * stride - low + np.arange(window)[None, :] * dilation
        inside = (at >= 0) & (at <= (size - 1) * grown) & (at % grown == 0)
        self.strengths = np.where(inside, strength[np.clip(at // grown, 0, size - 1)], 0.0)
        self.count = float(inside.sum()) / out
        self.pairs = _pairs(self.strengths)
        near = self._near(value, axis[0], stride) if axis else 0.0
        if size > 1:
            self.pairs.flat[:3] /= (strength.sum() ** 2 - size) / (
                size * (size - 1)
            )  # all but those of one entry
        made = np.sqrt(np.square(self.strengths).sum(axis=1))
        flat = np.ptp(made) <= 1e-12 * made.max(initial=0.0)
        self.axis = (Atom(out, None if flat else _normal(made), near),) if out > 1 else ()

    def _near(self, value: Any, atom: Atom, stride: int) -> float:
        """How alike neighbours of the result are."""
        if len(self.strengths) < 3:
            return 0.0
        beside = float((self.strengths[1:] * self.strengths[:-1]).sum()) / (len(self.strengths) - 1)
        any_two, near, same = _moments(value, atom, stride) * [self.pairs[0, 1], beside, self.pairs[1, 1]]
        return float(np.clip((near - any_two) / (same - any_two), 0.0, 1.0)) if same > any_two else 0.0


def _normal(strength: np.ndarray) -> np.ndarray:
    return np.asarray(strength / math.sqrt(float(np.square(strength).mean())))


def _pairs(weight: np.ndarray) -> np.ndarray:
    """Of weights by position and tap, the sums over pairs of taps, averaged over pairs of positions."""
    out, total, square = len(weight), weight.sum(axis=1), np.square(weight).sum()
    apart = max(out * (out - 1), 1)
    same = np.array([(np.square(weight.sum(axis=0)).sum() - square) / apart, square / out])
    every = np.array([(total.sum() ** 2 - (total**2).sum()) / apart, (total**2).sum() / out])
    return np.stack([every - same, same], axis=1)


def _response(value: Any) -> float:
    """d ln E[fn^2] / d ln E[x^2], for fn(x); 1 for what is no function of a Gaussian value."""
    if not isinstance(value, Applied) or not value.argument.variance > 0:
        return 1.0
    x = value.argument
    try:
        small, large = (
            hermite_of(value.fn, x.mean * math.sqrt(f), x.variance * f)[1] for f in (1.0, 1.0 + _STEP)
        )
    except Unknown:
        return 1.0
    return math.log(large / small) / math.log1p(_STEP) if small > 0 else 1.0


def _moments(value: Any, atom: Atom, steps: int) -> np.ndarray:
    """E[x x'] of any two positions, of those so many steps apart, and of one with itself; all else agrees."""
    x = value.argument if isinstance(value, Applied) else value
    table = x.table()
    any_two, same = (float(table[tuple(int(d or a is not atom) for a in atoms_of(x.axes))]) for d in (0, 1))
    each = np.array([any_two, any_two + atom.near**steps * (same - any_two), same])
    if isinstance(value, Applied) and x.variance > 0:
        try:
            coefficients, second, _ = hermite_of(value.fn, x.mean, x.variance)
        except Unknown:
            return each
        found = np.polynomial.polynomial.polyval(np.clip(each / x.variance, -1.0, 1.0), coefficients**2)
        return np.asarray([*found[:2], second])
    return each + x.mean**2
