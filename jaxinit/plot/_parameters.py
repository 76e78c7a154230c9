"""What there is to say parameter by parameter: what was drawn, what to draw, how far a step moves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit._core import checks
from jaxinit.plot._rows import Marks, Panel, rows
from jaxinit.records import ParameterStatistics, Suggestion, WidthTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STATISTICS = {
    "norm": ("Size", r"$\|W\|_F$"),
    "gradient_norm": ("Gradient", r"$\|\partial L/\partial W\|_F$"),
    "gradient_ratio": ("Relative gradient", r"$\|\partial L/\partial W\|_F\,/\,\|W\|_F$"),
    "update_ratio": ("First update", r"$\|\Delta W\|_F\,/\,\|W\|_F$"),
}
#: sigma^2 times fan-in of the schemes that keep a signal: through linear layers, through ReLU.
_SCHEMES = ((1.0, "lecun: 1"), (2.0, "he: 2"))


def parameters(record: Any, *, theme: str = "light") -> Figure:
    """A row a parameter, numbers on logarithmic axes; returns the Figure.

    - ParameterStatistics: the gradient's norm, over the parameter's norm, and the first update's, with their range over
      seeds.
    - InitTable: the standard deviation of the entries, and their variance times the fan-in beside the schemes' (1 for
      `lecun`, 2 for `he`); rings are what was asked for.
    - Suggestion: standard deviation and second moment, of the model as it is and with the suggested code.
    - WidthTable: what standard deviation and learning rates are multiplied with.

    Zeros stand as triangles on the left edge, infinities on the right. Beyond 60 parameters evenly spaced ones are
    drawn.

    Arguments:
        record: one of these.
        theme: "light" or "dark".

    Raises:
        TypeError: for another record.

    Example:
        >>> import jax, flax.linen as nn, jaxinit as ji
        >>> from jaxinit.plot import parameters
        >>> table = ji.init_table(nn.Dense(64), jax.numpy.ones((1, 64)))
        >>> [ax.get_xlabel() for ax in parameters(table).axes]
        ['standard deviation', 'variance × fan-in']
    """
    for kind, draw in _KINDS.items():
        if isinstance(record, kind):
            return draw(record, theme)
    if type(record).__name__ == "InitTable":  # of an area above this one
        return _init_table(record, theme)
    rule = "a ParameterStatistics, InitTable, Suggestion or WidthTable"
    raise checks.wrong_type("parameters", "record", rule, record)


def _statistics(record: ParameterStatistics, theme: str) -> Figure:
    found = dict(record.statistics())
    # A ratio says more than its parts; sizes alone stand in where no gradient was taken.
    names = [n for n in _STATISTICS if n in found and n != "norm"] or ["norm"]
    several = record.norm.count > 1
    panels = []
    for name in names:
        stat, (title, axis) = found[name], _STATISTICS[name]
        span = (stat.min, stat.max) if several else (None, None)
        panels.append(
            Panel(title, axis, (Marks("mean over seeds" if several else "value", stat.mean, *span),))
        )
    count = record.norm.count
    caption = f"bar: min to max over {count} seeds" if several else ""
    return rows(record.names, panels, caption=caption, theme=theme)


def _init_table(record: Any, theme: str) -> Figure:
    found = record.parameters
    stddev = np.asarray([r.stddev for r in found])
    asked = np.asarray([np.nan if r.asked_stddev is None else r.asked_stddev for r in found])
    fan_in = np.asarray([r.fan_in or np.nan for r in found], np.float64)
    drawn = [("drawn", stddev, False, 0)]
    if np.isfinite(asked).any():
        drawn.append(("asked for", asked, True, 1))
    spread = tuple(Marks(name, s, look=look, hollow=ring) for name, s, ring, look in drawn)
    scaled = tuple(Marks(name, s**2 * fan_in, look=look, hollow=ring) for name, s, ring, look in drawn)
    panels = [Panel("Entries", "standard deviation", spread)]
    if np.isfinite(fan_in).any():
        panels.append(Panel("Per input", "variance × fan-in", scaled, _SCHEMES))
    return rows([r.path for r in found], panels, theme=theme)


def _suggestion(record: Suggestion, theme: str) -> Figure:
    def both(now: str, then: str) -> tuple[Marks, ...]:
        values = (np.asarray([getattr(s, name) for s in record.layers], np.float64) for name in (now, then))
        before, after = values
        return Marks("as it is", before, look=1, hollow=True), Marks("as suggested", after)

    panels = (
        Panel("Entries", "standard deviation", both("now", "stddev"), joined=True),
        Panel(
            "Signal, as analysed", r"$\langle z^2\rangle$", both("second_moment_now", "second_moment"),
            joined=True,
        ),
    )  # fmt: skip
    return rows([s.parameter for s in record.layers], panels, theme=theme)


def _width_table(record: WidthTable, theme: str) -> Figure:
    def factors(name: str) -> np.ndarray:
        return np.asarray([getattr(rule, name) for rule in record.rules], np.float64)

    init = (
        Marks("as it should be", factors("init")),
        Marks("the model's own", factors("own_init"), look=1, hollow=True),
    )
    rates = Marks("Adam", factors("adam"), look=2), Marks("SGD", factors("sgd"), look=3, hollow=True)
    unchanged = ((1.0, "unchanged"),)
    panels = (
        Panel("Standard deviation", "factor", init, unchanged),
        Panel("Learning rate", "factor", rates, unchanged),
    )
    caption = f"from width {record.base_width:g} to {record.width:g}"
    return rows([rule.parameter for rule in record.rules], panels, caption=caption, theme=theme)


_KINDS: dict[type, Callable[[Any, str], Figure]] = {
    ParameterStatistics: _statistics,
    Suggestion: _suggestion,
    WidthTable: _width_table,
}
