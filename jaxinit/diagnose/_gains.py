"""Gains near zero, such as LayerScale's: what lies behind them gets little gradient, and is meant to."""

from __future__ import annotations

import math

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import Case, finding
from jaxinit.diagnose._certainty import Figure
from jaxinit.records import Finding
from jaxinit.records._tables import format_log

_SHIFTS = ("bias", "b")
_LN10 = math.log(10.0)


def small_gains(case: Case) -> dict[str, float]:
    """Vectors and scalars, biases apart, that take a second moment below the threshold of a warning: logs of their rms.

    One that is 0 is none of them: it passes no gradient back at all.
    """
    p = case.record.parameters
    if p is None:
        return {}
    out = {}
    for name, shape, norm in zip(p.names, p.shapes, p.norm.mean, strict=True):
        if len(shape) < 2 and not name.rsplit("/", 1)[-1].endswith(_SHIFTS) and norm > 0.0:
            log = math.log(norm) - 0.5 * math.log(max(math.prod(shape), 1))
            if 2.0 * log <= -at.DECADES * _LN10:
                out[name] = log
    return out


def behind(case: Case) -> np.ndarray:
    """For each site the log of the gain that its gradient may pass, 0 where there is none.

    Taken are the sites within the nearest module around a gain that has a matrix, the model itself apart. Which of them
    the gain multiplies is not known, so this may excuse a figure, and never accuse one.
    """
    gains, layout = small_gains(case), case.record.layout
    out = np.zeros(len(layout) or case.depth)
    p = case.record.parameters
    matrices = [] if p is None else [n for n, shape in zip(p.names, p.shapes, strict=True) if len(shape) > 1]
    for name, log in sorted(gains.items(), key=lambda item: item[1]):  # of several in one module the largest
        scope = name.rpartition("/")[0]
        while scope and not any(m.startswith(f"{scope}/") for m in matrices):
            scope = scope.rpartition("/")[0]
        if scope:
            inside = [any(n.startswith(f"{scope}/") for n in (s.module, *s.parameters)) for s in layout]
            out[np.array(inside, bool)] = log
    return out


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
