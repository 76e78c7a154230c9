"""Figures of tables: a row a parameter, a mark a number, panels side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit.plot import _style
from jaxinit.plot._sites import shared_path
from jaxinit.records._tables import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Rows at most; beyond, evenly spaced ones are drawn, as in tables.
MAX_ROWS = 60
_LETTERS = 34  # of a name
_LEAST_SPAN = 10.0  # of a logarithmic axis: noise must not look like a difference


@dataclasses.dataclass(frozen=True)
class Marks:
    """One number a row, with a range where there is one; `look` is the number of their colour and marker."""

    label: str
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    look: int = 0
    hollow: bool = False


@dataclasses.dataclass(frozen=True)
class Panel:
    """What the numbers are, and numbers to compare them with: `lines` are (value, name)."""

    title: str
    axis: str
    marks: tuple[Marks, ...]
    lines: tuple[tuple[float, str], ...] = ()
    joined: bool = False


def short(name: str) -> str:
    """A name that fits beside an axis, with no markup of matplotlib's in it."""
    cut = name if len(name) <= _LETTERS else "…" + name[1 - _LETTERS :]
    return cut.replace("$", r"\$")


def rows(names: Sequence[str], panels: Sequence[Panel], *, caption: str = "", theme: str = "light") -> Figure:
    """The figure: names on the left, first row on top; logarithmic axes; 0 and infinity as marks on the edges."""
    chosen = shown(len(names), MAX_ROWS)
    size = (2.6 + 3.7 * len(panels), 1.9 + 0.23 * max(len(chosen), 3))
    figure, axes = _style.new_figure(1, len(panels), size=size, theme=theme)
    handles: dict[str, Any] = {}
    start = shared_path(names)
    for n, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
        for label, handle in _draw(ax, panel, chosen, theme):
            handles.setdefault(label, handle)
        ax.set_ylim(len(chosen) - 0.5, -0.5)
        ax.set_yticks(
            range(len(chosen)), [short(names[i][start:]) for i in chosen] if n == 0 else [], fontsize=8
        )
        ax.tick_params(axis="y", length=0)
    notes = [caption] if caption else []
    if any((m.values[chosen] == 0).any() for panel in panels for m in panel.marks):
        notes.append("on the edge: 0")
    if len(chosen) < len(names):
        notes.append(f"{len(chosen)} of {len(names)} rows")
    _style.legend(figure, list(handles.values()), title="; ".join(notes), theme=theme)
    return figure


def _draw(ax: Axes, panel: Panel, chosen: np.ndarray, theme: str) -> list[tuple[str, Any]]:
    """Draw the panel; its legend."""
    lines: Any = _style.matplotlib().lines
    ink = _style.THEMES[theme].ink
    y = np.arange(len(chosen))
    handles: list[tuple[str, Any]] = []
    ax.set_xscale("log")
    ax.set_xlim(*_limits(panel, chosen))
    if panel.joined:
        first, last = (_seen(m.values[chosen]) for m in (panel.marks[0], panel.marks[-1]))
        ax.hlines(y, first, last, colors=ink, linewidth=0.8, alpha=0.5, zorder=1.5)
    for marks in panel.marks:
        look, values = _style.look(marks.look, theme), marks.values[chosen]
        style: dict[str, Any] = {
            "color": look.colour, "markerfacecolor": "none" if marks.hollow else look.colour, "linestyle": "none",
            "markersize": 8.0 if marks.hollow else 5.0, "zorder": 3,
        }  # fmt: skip
        ax.plot(_seen(values), y, marker=look.marker, **style)
        if marks.low is not None and marks.high is not None:
            low, high = _seen(marks.low[chosen]), _seen(marks.high[chosen])
            ax.hlines(y, low, high, colors=look.colour, linewidth=1.4, zorder=2)
        edge: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False, **style}
        for found, place, marker in ((values == 0, 0.0, "<"), (np.isposinf(values), 1.0, ">")):
            if found.any():
                ax.plot(np.full(found.sum(), place), y[found], marker=marker, **edge)
        handle = lines.Line2D([], [], marker=look.marker, label=marks.label, **style)
        handles.append((marks.label, handle))
    for n, (value, name) in enumerate(panel.lines):
        drawn = ax.axvline(value, color=ink, linewidth=0.9, linestyle=("--", ":", "-.")[n % 3], zorder=1)
        drawn.set_label(name)
        handles.append((name, drawn))
    ax.set_title(panel.title)
    ax.set_xlabel(panel.axis)
    _number(ax)
    return handles


def _number(ax: Axes) -> None:
    """Powers of ten, and 2 and 5 times them where there are few."""
    ticker = _style.matplotlib().ticker
    low, high = ax.get_xlim()
    if high < 50 * low:
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())


def _seen(values: np.ndarray) -> np.ndarray:
    """Where a logarithmic axis has a place for them."""
    return np.where((values > 0) & np.isfinite(values), values, np.nan)


def _limits(panel: Panel, chosen: np.ndarray) -> tuple[float, float]:
    values = [a[chosen] for m in panel.marks for a in (m.values, m.low, m.high) if a is not None]
    values.append(np.asarray([value for value, _ in panel.lines]))
    found = _seen(np.concatenate(values))
    found = found[np.isfinite(found)]
    low, high = (float(found.min()), float(found.max())) if found.size else (1.0, 1.0)
    missing = max(1.0, _LEAST_SPAN * low / high) ** 0.5
    room = (high / low) ** 0.06
    return low / missing / room, high * missing * room
