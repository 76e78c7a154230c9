"""Statistics against depth: one line a record, theory and simulation together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit._core import checks
from jaxinit.plot import _style
from jaxinit.plot._series import BANDS, NAMES, Series, grouped, recorded, series
from jaxinit.plot._sites import name_sites, number_sites
from jaxinit.plot._style import Colours
from jaxinit.records import STATISTICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Beyond these powers of ten matplotlib's own log axis is no longer safe: exponents are drawn instead.
_FLOAT_RANGE = 250.0
_SPAN = 2.0  # the least number of decades on a log axis: noise must not look like a trend


def _finite(lines: Sequence[Series]) -> np.ndarray:
    values = np.concatenate([np.concatenate([s.centre, s.low, s.high]) for s in lines])
    return values[np.isfinite(values)]


def _limits(lines: Sequence[Series]) -> tuple[float, float]:
    values = _finite(lines)
    least, most = (float(values.min()), float(values.max())) if values.size else (-1.0, 1.0)
    if lines[0].log:
        missing = max(0.0, _SPAN - (most - least)) / 2
        least, most = least - missing, most + missing
    room = 0.05 * (most - least) or 0.05
    return least - room, most + room


def _not_finite(line: Series) -> str:
    """What the line cannot show: `0 from 3`, `0 at 1 to 29`, `nan everywhere`; else the empty string."""
    signs = (
        (np.isneginf(line.centre), "0"),
        (np.isnan(line.centre), "nan"),
        (np.isposinf(line.centre), "inf"),
    )
    for found, word in signs:
        if found.all():
            return f"{word} everywhere"
        if found.any():
            at = np.flatnonzero(found)
            first, last = line.sites[at[0]], line.sites[at[-1]]
            if found[-1]:
                return f"{word} from {first}"
            return f"{word} at {first}" + (f" to {last}" if last != first else "")
    return ""


def _noted(label: str, notes: dict[str, str]) -> str:
    """The label with its notes by panel, said once where all panels agree."""
    found = {panel: note for panel, note in notes.items() if note}
    if not found:
        return label
    if len(set(notes.values())) == 1:
        return f"{label} ({next(iter(found.values()))})"
    return f"{label} (" + "; ".join(f"{panel} {note}" for panel, note in found.items()) + ")"


def _draw(
    ax: Axes, line: Series, *, exact: bool, power: bool, limits: tuple[float, float], theme: str
) -> Any:
    look = _style.look(line.colour, theme)

    def unit(values: np.ndarray) -> np.ndarray:
        return 10.0**values if power else values

    every = max(1, len(line.x) // 8)
    start = (line.colour * every) // 4 % every
    shown = np.where(np.isfinite(line.centre), line.centre, np.nan)
    (drawn,) = ax.plot(
        line.x, unit(shown), color=look.colour, linestyle="--" if exact else look.dash,
        linewidth=1.3 if exact else 1.8, marker=None if exact else look.marker, markersize=4.5,
        markevery=(start, every), label=line.label, zorder=3 if exact else 2.5,
    )  # fmt: skip
    if (line.high > line.low).any():
        low, high = np.clip(line.low, *limits), np.clip(line.high, *limits)
        band: dict[str, Any] = {"color": look.colour, "alpha": 0.18, "zorder": 1.5}
        if len(line.x) > 1:
            ax.fill_between(line.x, unit(low), unit(high), linewidth=0, **band)
        else:  # one site has no band: a bar of its range
            ax.vlines(line.x, unit(low), unit(high), linewidth=8, **band)
    for found, height, marker in (
        (np.isneginf(line.centre), 0.015, "v"),
        (np.isposinf(line.centre), 0.985, "^"),
    ):
        if found.any():
            (marks,) = ax.plot(
                line.x[found], np.full(found.sum(), height), transform=ax.get_xaxis_transform(),
                color=look.colour, marker=marker, markersize=4.5, markevery=every, linestyle="none",
                clip_on=False, zorder=3, label=drawn.get_label(),
            )  # fmt: skip
            drawn = marks if found.all() else drawn
    return drawn


def _name_axis(ax: Axes, lines: Sequence[Series]) -> None:
    """The sites of the lines; numbers of their order where names differ from line to line."""
    if any(line.sites != lines[0].sites for line in lines):
        numbered = all(s.isdigit() for line in lines for s in line.sites)
        number_sites(ax, "layer" if numbered else "site, in order")
    else:
        name_sites(ax, lines[0].x, lines[0].sites)


def _caption(lines: Sequence[Series], band: str) -> str:
    """What line and band mean, and over how many seeds."""
    sampled = [line for line in lines if line.count > 0]
    if not sampled:
        return "theory (exact at infinite width)"
    typical = any(line.statistic.startswith("log_") for line in sampled)
    counts = sorted({line.count for line in sampled})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    seeds = "1 seed" if counts == [1] else f"{n} seeds"
    text = "line: typical value, exp(mean of log)" if typical else "line: mean"
    if counts != [1] and band != "none":
        text += "; band: " + ("min to max" if band == "range" else "mean ± 1 standard error")
    text += f" over {seeds}"
    return text + ("; dashed: theory" if len(sampled) < len(lines) else "")


def _lines(
    groups: dict[str, list[Any]], statistic: str, band: str, chosen: int | None, colours: Colours
) -> list[tuple[Series, bool]]:
    out, numbers = [], _style.numbers(groups, colours)
    for label, records in groups.items():
        for record in records:
            name = label if len(records) == 1 else f"{label}, {record.source}"
            line = series(record, statistic, name, band=band, chosen=chosen, colour=numbers[label])
            if line is not None:
                out.append((line, record.count == 0))
    return out


def draw_panel(ax: Axes, lines: list[tuple[Series, bool]], statistic: str, theme: str) -> list[Any]:
    """Draw the lines, exact ones dashed, and name the axes; what the legend shows of them."""
    drawn = [line for line, _ in lines]
    limits = _limits(drawn)
    logarithmic = drawn[0].log
    power = logarithmic and max(abs(x) for x in limits) < _FLOAT_RANGE
    title, axis = NAMES[statistic]
    if power:
        ax.set_yscale("log")
    handles = [_draw(ax, line, exact=exact, power=power, limits=limits, theme=theme) for line, exact in lines]
    if statistic not in ("correlation", "grad_correlation") and not statistic.endswith("_fraction"):
        ax.set_ylim(*(10.0**x if power else x for x in limits))
    elif statistic.endswith("_fraction"):
        ax.set_ylim(-0.03, 1.03)
    else:
        ax.set_ylim(min(-0.03, limits[0]), 1.03)
    if power:
        ax.yaxis.set_minor_locator(_style.matplotlib().ticker.NullLocator())
    ax.set_title(title)
    ax.set_ylabel(axis if power or not logarithmic else r"$\log_{10}$ " + axis)
    _name_axis(ax, drawn)
    return handles


def depth_profile(
    records: Any,
    statistic: str = "log_second_moment",
    *,
    ax: Axes | None = None,
    band: str = "range",
    input: int | None = None,
    colours: Colours = None,
    theme: str = "light",
) -> Axes:
    """One statistic against depth, one line a record; returns the Axes.

    Arguments:
        records: a Propagation, a sequence of them, or a mapping from labels to records. A label may hold a
            sequence (simulation and theory of one network): these share their colour.
        statistic: a name of `jaxinit.records.STATISTICS`. Second moments are drawn as typical values, the
            exponential of the mean over seeds of the logarithm, which neither underflow nor are ruled by
            rare seeds; where a record has no logarithms, its means stand in.
        ax: where to draw; a new figure (its `.figure`) by default.
        band: "range" (least to greatest over seeds), "stderr" (mean ± 1 standard error) or "none".
        input: index of the input (or pair) to draw; averaged over inputs by default.
        colours: numbers of colours by label, so that a label keeps its own from figure to figure; others follow.
        theme: "light" or "dark", for a new figure.

    Exponential quantities have a log axis; where they leave the range of floats, the axis shows exponents.
    Exact zeros stand as triangles on the lower edge, infinities on the upper, and the legend names the first.
    Theory is dashed and has no band.

    Raises:
        ValueError: no record has the statistic, or an argument breaks its rule.

    Example:
        >>> import numpy as np
        >>> from jaxinit.plot import depth_profile
        >>> from jaxinit.records import Propagation, Statistic
        >>> log_q = Statistic.exact(-np.log(2.0) * np.arange(30)[:, None])
        >>> sites = tuple(str(l) for l in range(1, 31))
        >>> halving = Propagation("theory", sites, inputs=1, log_second_moment=log_q)
        >>> depth_profile({"Xavier": halving}).get_yscale()
        'log'
    """
    checks.choice("depth_profile", "statistic", statistic, tuple(STATISTICS))
    checks.choice("depth_profile", "band", band, BANDS)
    lines = _lines(grouped(records, "depth_profile"), statistic, band, input, colours)
    if not lines:
        raise checks.bad("depth_profile", "statistic", "recorded in at least one of the records", statistic)
    ax, new = _style.panel(ax, theme)
    handles = draw_panel(ax, lines, statistic, theme)
    for (line, _), handle in zip(lines, handles, strict=True):
        handle.set_label(_noted(line.label, {"": _not_finite(line)}))
    caption = _caption([line for line, _ in lines], band)
    _style.legend(ax.figure if new else ax, handles, title=caption, theme=theme if new else None)
    return ax


def depth_profiles(
    records: Any,
    statistics: Sequence[str] = ("log_second_moment", "log_grad_second_moment"),
    *,
    band: str = "range",
    input: int | None = None,
    colours: Colours = None,
    theme: str = "light",
) -> Figure:
    """Several statistics against depth, a panel each, under one legend; returns the Figure.

    Statistics that no record has are left out. The arguments are those of `depth_profile`.

    Raises:
        ValueError: no record has any of the statistics, or an argument breaks its rule.

    Example:
        >>> import numpy as np
        >>> from jaxinit.plot import depth_profiles
        >>> from jaxinit.records import Propagation, Statistic
        >>> q = Statistic.of(np.exp(np.linspace(0, -9, 10))[None, :, None] * np.ones((4, 10, 1)))
        >>> sites = tuple("0123456789")
        >>> run = Propagation("simulation", sites, inputs=1, second_moment=q, grad_second_moment=q)
        >>> len(depth_profiles({"lecun": run}).axes)
        2
    """
    checks.choice("depth_profiles", "band", band, BANDS)
    groups = grouped(records, "depth_profiles")
    for name in statistics:
        checks.choice("depth_profiles", "statistics", name, tuple(STATISTICS))
    everything = [r for group in groups.values() for r in group]
    present = [s for s in statistics if any(recorded(r, s) for r in everything)]
    if not present:
        raise checks.bad("depth_profiles", "statistics", "recorded in at least one record", tuple(statistics))
    columns = min(2, len(present))
    figure, panels = _style.new_figure(-(-len(present) // columns), columns, theme=theme)
    handles: dict[str, Any] = {}
    notes: dict[str, dict[str, str]] = {}
    captions = []
    for ax, statistic in zip(panels, present, strict=False):
        lines = _lines(groups, statistic, band, input, colours)
        short = NAMES[statistic][0].split(":")[0].lower()
        for (line, _), handle in zip(lines, draw_panel(ax, lines, statistic, theme), strict=True):
            handles.setdefault(line.label, handle)
            notes.setdefault(line.label, {})[short] = _not_finite(line)
        captions.append(_caption([line for line, _ in lines], band))
    for label, handle in handles.items():
        handle.set_label(_noted(label, notes[label]))
    for ax in panels[len(present) :]:
        figure.delaxes(ax)
    _style.legend(figure, list(handles.values()), title=_joined(captions), theme=theme)
    return figure


def _joined(captions: Sequence[str]) -> str:
    """One caption if all panels share it; the one that speaks of typical values where panels differ."""
    kinds = list(dict.fromkeys(captions))
    if len(kinds) == 1:
        return kinds[0]
    return next((k for k in kinds if "typical" in k), kinds[0]).replace(
        "typical value, exp(mean of log)", "mean (second moments: exp of mean log)"
    )
