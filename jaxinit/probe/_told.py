"""Second moments and means of rows, on the host: what `Layout.statistics` makes of them, with nothing to compile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxinit.probe._layout import Layout

__all__ = ["averaged", "moments", "repeated", "stacked"]

_LN2 = math.log(2.0)


def moments(layout: Layout, rows: Any, backward: bool = False) -> tuple[Any, Any]:
    """Of rows (n, entries), examples not apart: the natural log of the second moment, shape (n,), and the mean (None of
    gradients). inf and nan where a value is not finite, nan of both where it did not run."""
    entries, found, start = layout.backward() if backward else layout.forward(), dict[str, Any](), 0
    for name, length in entries.items():
        found[name] = np.asarray(rows[:, start : start + length], np.float64)
        start += length
    with np.errstate(all="ignore"):
        top, units = found["top"][:, 0], found["units"][:, 0]
        square = np.sum(found["squares"], axis=1) / (units * layout.examples)
        # The power of two that the values were divided by: at or below the largest, and a normal number.
        scale = np.clip(np.frexp(top)[1] - 1, -126, 126)
        finite, ran = np.isfinite(top) & np.isfinite(square), found["ran"][:, 0] > 0
        log = np.where(finite, np.log(square) + 2 * _LN2 * scale, np.inf)
        log = np.where(ran, log, np.nan)
        if backward:
            return log, None
        mean = np.ldexp(found["level"][:, 0] / (units * layout.examples), scale)
        return log, np.where(ran & finite, mean, np.nan)


def stacked(rows: dict[int, Any], order: Sequence[int]) -> Any:
    """The rows of all places in this order, those of a place's iterations one after the other."""
    held = {p: np.asarray(row) for p, row in rows.items()}
    return np.concatenate([np.reshape(held[p], (-1, held[p].shape[-1])) for p in order])


def repeated(log: Any, rows: Any) -> Any:
    """The log of the mean over the rows that belong together, given logs; `rows` as of `Products`, -1 for none. What
    did not run does not count."""
    each = np.where(rows >= 0, log[rows], np.nan)
    ran = ~np.isnan(each)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.logaddexp.reduce(np.where(ran, each, -np.inf), axis=1) - np.log(_count(ran))


def averaged(mean: Any, rows: Any) -> Any:
    """The mean over the rows that belong together."""
    each = np.where(rows >= 0, mean[rows], np.nan)
    some = ~np.isnan(each)
    return np.sum(np.where(some, each, 0), axis=1) / _count(some)


def _count(some: Any) -> Any:
    """nan where nothing counts."""
    count = np.sum(some, axis=1).astype(np.float64)
    return np.where(count > 0, count, np.nan)
