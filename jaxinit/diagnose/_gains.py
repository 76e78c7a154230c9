"""Gains near zero, such as LayerScale's: what lies behind them gets little gradient, and is meant to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import Case, finding, level
from jaxinit.diagnose._certainty import Figure
from jaxinit.records import Finding
from jaxinit.records._tables import format_log

_SHIFTS = ("bias", "b")
_LN10 = math.log(10.0)


def matrices(case: Case) -> np.ndarray:
    """Which parameters are matrices; gains of several layers that are held in one array, all drawn equal, are not."""
    p = case.record.parameters
    if p is None:
        return np.zeros(0, bool)
    multiplied = {name for site in case.record.layout for name in site.parameters}
    equal = set(case.record.config.get("equal_entries") or ()) - multiplied
    return np.array(
        [len(shape) > 1 and name not in equal for name, shape in zip(p.names, p.shapes, strict=True)]
    )


def small_gains(case: Case) -> dict[str, float]:
    """Gains, biases apart, that take a second moment below the threshold of a warning: logs of their rms.

    One that is 0 is none of them: it passes no gradient back at all.
    """
    p = case.record.parameters
    if p is None:
        return {}
    out = {}
    for name, shape, norm, matrix in zip(p.names, p.shapes, p.norm.mean, matrices(case), strict=True):
        if not matrix and not name.rsplit("/", 1)[-1].endswith(_SHIFTS) and norm > 0.0:
            log = math.log(norm) - 0.5 * math.log(max(math.prod(shape), 1))
            if 2.0 * log <= -at.DECADES * _LN10:
                out[name] = log
    return out


def behind(case: Case, inside: Sequence[Sequence[str]] | None = None) -> np.ndarray:
    """For each site, or each tuple of paths, the log of the gain that its gradient may pass, 0 where there is none.

    Taken is what lies within the nearest module around a gain that has a matrix, the model itself apart. What of it the
    gain multiplies is not known, so this may excuse a figure, and never accuse one.
    """
    layout, p = case.record.layout, case.record.parameters
    if inside is None:
        inside = [(s.module, *s.parameters) for s in layout]
    out = np.zeros(len(inside) or case.depth)
    held = [] if p is None else [n for n, matrix in zip(p.names, matrices(case), strict=True) if matrix]
    for name, log in sorted(
        small_gains(case).items(), key=lambda item: item[1]
    ):  # of several in one the largest
        scope = name.rpartition("/")[0]
        while scope and not any(m.startswith(f"{scope}/") for m in held):
            scope = scope.rpartition("/")[0]
        if scope:
            out[[any(n.startswith(f"{scope}/") for n in names) for names in inside]] = log
    return out


def apart(
    case: Case, names: Sequence[str], inside: Sequence[Sequence[str]], log: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far each logarithm is from its like (`level` of `names`), and what is usual there.

    What gains near zero explain is not counted: the figure is the nearest to its like of those with a gain that may
    lie on the way and without, as Adam's steps are. A smaller one may be behind gains elsewhere; and one that the model
    itself holds may lie on any way but this.
    """
    gains, passed = small_gains(case), behind(case, inside)
    usual = level(names, log - passed)
    readings = np.stack([log - usual, log - passed - usual, log - level(names, log)])
    nearest = np.take_along_axis(readings, np.abs(readings).argmin(axis=0)[None], axis=0)[0]
    least = -min(gains.values(), default=0.0)
    own = -min((gain for name, gain in gains.items() if "/" not in name), default=0.0)
    less, more = np.minimum(nearest + least, 0.0), np.maximum(nearest - own, 0.0)
    return np.where(nearest < 0.0, less, more), usual


def gains_near_zero(case: Case) -> list[Finding]:
    """A note that names gains so small that the branches they multiply hardly take part in the first steps."""
    gains = small_gains(case)
    if not gains:
        return []
    names = sorted(gains, key=gains.__getitem__)
    least = gains[names[0]]
    more = (
        f" and {len(names) - 1} more multiply what they scale"
        if len(names) > 1
        else " multiplies what it scales"
    )
    text = (
        f"{names[0]}{more} by {format_log(least)} (rms): what lies behind gets a gradient smaller by that factor. "
        "Right if it is meant so (LayerScale): Adam evens it out, plain SGD leaves it behind."
    )
    figure = Figure(2.0 * least / _LN10)
    return [
        finding(
            "small_gain", "note", text, tuple(dict.fromkeys((names[0], names[-1]))),
            ("log10 of the square of the smallest gain", figure), -at.DECADES, 0.0, "", at.DECADES_SOURCE,
        )
    ]  # fmt: skip
