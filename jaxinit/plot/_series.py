"""From a record to the numbers of one line: x, centre, band; logarithms in base 10."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit.records import STATISTICS, Propagation, Statistic
from jaxinit.records._depth import positions

BANDS = ("range", "stderr", "none")
LN10 = math.log(10.0)

#: Saved as natural logarithms.
_LOGARITHMS = ("log_second_moment", "log_grad_second_moment")
#: Positive and exponential in depth: drawn on a log axis.
_POSITIVE = (
    "second_moment",
    "grad_second_moment",
    "weight_grad_norm",
    "update_ratio",
    "one_minus_correlation",
)
#: What to draw instead, where the wanted statistic was not recorded.
_STAND_IN = {"log_second_moment": "second_moment", "log_grad_second_moment": "grad_second_moment"}

#: Statistic -> (panel title, name of the vertical axis).
NAMES = {
    "log_second_moment": ("Signal: second moment", r"$\langle z^2\rangle$"),
    "second_moment": ("Signal: second moment", r"$\langle z^2\rangle$"),
    "mean": ("Mean over units", r"$\langle z\rangle$"),
    "kurtosis": ("Tails", "excess kurtosis over units"),
    "correlation": ("Correlation of two inputs", r"$c$"),
    "one_minus_correlation": ("Distance of two inputs", r"$1 - c$"),
    "dead_fraction": ("Dead units", "share of units off for every input"),
    "saturated_fraction": ("Saturated units", "share of units"),
    "zero_fraction": ("Exact zeros", "share of activations"),
    "log_grad_second_moment": ("Gradient: second moment", r"$\langle(\partial L/\partial z)^2\rangle$"),
    "grad_second_moment": ("Gradient: second moment", r"$\langle(\partial L/\partial z)^2\rangle$"),
    "grad_correlation": ("Gradient correlation of two inputs", r"$c$ of $\partial L/\partial z$"),
    "weight_grad_norm": ("Weight gradient", r"$\|\partial L/\partial W\|_F$"),
    "update_ratio": ("Relative weight gradient", r"$\|\partial L/\partial W\|_F\,/\,\|W\|_F$"),
}


@dataclasses.dataclass(frozen=True)
class Series:
    """One line: `centre` with a band `low` .. `high`; base-10 logarithms if `log`; `count` 0 means exact."""

    label: str
    x: np.ndarray
    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: int
    log: bool
    statistic: str
    sites: tuple[str, ...]
    colour: int = 0


def is_log(statistic: str) -> bool:
    """Whether the statistic belongs on a logarithmic axis."""
    return statistic in _LOGARITHMS or statistic in _POSITIVE


def recorded(record: Propagation, statistic: str) -> str | None:
    """The statistic itself if the record has it, else its stand-in, else None."""
    for name in (statistic, _STAND_IN.get(statistic)):
        if name is not None and getattr(record, name) is not None and getattr(record, name).mean.size:
            return name
    return None


def grouped(records: Any, where: str = "plot") -> dict[str, list[Propagation]]:
    """Label -> records, from a record, a sequence of them, or a mapping to records or sequences of them."""
    groups: dict[str, list[Propagation]] = {}
    if isinstance(records, Mapping):
        for label, value in records.items():
            groups[str(label)] = list(value) if isinstance(value, (list, tuple)) else [value]
    else:
        for record in records if isinstance(records, Sequence) else [records]:
            groups.setdefault(getattr(record, "label", "?"), []).append(record)
    for group in groups.values():
        for record in group:
            if not isinstance(record, Propagation):
                rule = "a Propagation, a sequence of them, or a mapping from labels to them"
                raise checks.wrong_type(where, "records", rule, record)
    if not groups:
        raise checks.bad(where, "records", "at least one Propagation", records)
    return groups


def _over_inputs(stat: Statistic, chosen: int | None) -> tuple[np.ndarray, ...]:
    """Mean, standard error, min and max by site. Without a chosen input (or pair): averaged over them.

    The inputs share their networks, so the standard error of the average is not known from theirs; their
    average is its upper bound (triangle inequality).
    """
    fields = (stat.mean, stat.stderr, stat.min, stat.max)
    if stat.mean.ndim == 1:
        return fields
    if chosen is not None:
        return tuple(f[:, chosen] for f in fields)
    with np.errstate(invalid="ignore"):
        return stat.mean.mean(1), stat.stderr.mean(1), stat.min.min(1), stat.max.max(1)


def log10(x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, np.log10(np.where(x > 0, x, 1.0)), np.where(np.isnan(x), np.nan, -np.inf))


def series(
    record: Propagation,
    statistic: str,
    label: str,
    *,
    band: str = "range",
    chosen: int | None = None,
    colour: int = 0,
) -> Series | None:
    """The line of one record, None if it has neither the statistic nor a stand-in."""
    name = recorded(record, statistic)
    if name is None:
        return None
    stat = record[name]
    chosen = None if chosen is None else checks.integer("plot", "input", chosen)
    if chosen is not None and stat.mean.ndim == 2 and not 0 <= chosen < stat.shape[1]:
        what = STATISTICS[name][1][1]
        raise checks.bad("plot", "input", f"None or an index of one of the {stat.shape[1]} {what}s", chosen)
    centre, stderr, least, most = _over_inputs(stat, chosen)
    with np.errstate(invalid="ignore"):
        low, high = (centre - stderr, centre + stderr) if band == "stderr" else (least, most)
    if name in _LOGARITHMS:
        centre, low, high = centre / LN10, low / LN10, high / LN10
    elif name in _POSITIVE:
        centre, low, high = log10(centre), log10(low), log10(high)
    if band == "none" or stat.count < 2:
        low, high = centre, centre
    return Series(
        label,
        positions(record.sites),
        centre,
        low,
        high,
        stat.count,
        is_log(statistic),
        name,
        record.sites,
        colour,
    )
