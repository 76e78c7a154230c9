"""A sweep as heat maps: what arrives at the end of a network, over two axes of the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit._core import checks
from jaxinit.plot import _style
from jaxinit.plot._series import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxinit.records import Sweep

_LN10 = float(np.log(10.0))
_PANELS = ("log_second_moment", "log_grad_second_moment", "correlation", "dead_fraction")
#: The axis that every point has.
LAYER = "layer"


def sweep_map(
    record: Sweep,
    statistics: Any = _PANELS,
    *,
    x: str | None = None,
    y: str | None = None,
    at: dict[str, Any] | None = None,
    theme: str = "light",
) -> Figure:
    """Heat maps of a sweep, one a statistic; returns the Figure.

    Over two axes of the grid a cell is what arrives: the signal and its correlation at the last site, the gradient at
    the first. With y="layer" (the choice for a grid of one axis) a column is a network, layer by layer.

    Arguments:
        record: a Sweep.
        statistics: names of `jaxinit.records.STATISTICS`; those that were not recorded are left out. Values are means
            over inputs (or pairs); second moments are typical ones, as powers of ten.
        x, y: names of axes, or "layer" for y; the first two axes of several values by default.
        at: values of other axes; the last value where one is not named.
        theme: "light" or "dark".

    Raises:
        ValueError: the grid is a single point, there is no such axis or value, or none of the statistics was recorded.

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.plot import sweep_map
        >>> grid = {"weight_variance": [1.0, 1.5, 2.0], "depth": 4, "width": 8, "activation": "relu"}
        >>> ax = sweep_map(ji.sweep(grid, 4), ["log_second_moment"]).axes[0]
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('weight_variance', 'layer')
    """
    where = "sweep_map"
    for name in statistics:
        checks.choice(where, "statistics", name, tuple(NAMES))
    present = [name for name in statistics if name in record.statistics]
    if not present:
        raise checks.bad(where, "statistics", "recorded in the sweep", tuple(statistics))
    x, y = _axes(where, record, x, y)
    rest = _fixed(where, record, (x, y), at or {})
    columns = min(2, len(present))
    rows = -(-len(present) // columns)
    figure, panels = _style.new_figure(rows, columns, size=(5.4 * columns, 3.6 * rows + 0.6), theme=theme)
    for ax, name in zip(panels, present, strict=False):
        _panel(ax, record, name, x, y, rest, theme)
    for ax in panels[len(present) :]:
        figure.delaxes(ax)
    fixed = ", ".join(
        f"{name} = {record.axes[name][i]}" for name, i in rest.items() if len(record.axes[name]) > 1
    )
    figure.suptitle(
        f"{record.label}, {record.count} seeds" + (f"; {fixed}" if fixed else ""),
        color=_style.THEMES[theme].ink, fontsize=11,
    )  # fmt: skip
    return figure


def _axes(where: str, record: Sweep, x: str | None, y: str | None) -> tuple[str, str]:
    several = [name for name, values in record.axes.items() if len(values) > 1]
    if not several:
        raise checks.bad(where, "record", "a sweep over more than one network", record)
    for argument, name in (("x", x), ("y", y)):
        if name is not None:
            checks.choice(where, argument, name, (*record.axes, *((LAYER,) if argument == "y" else ())))
    x = x or next((name for name in several if name != y), several[0])
    y = y or next((name for name in several if name != x), LAYER)
    if x == y:
        raise checks.bad(where, "y", f"another axis than x={x!r}", y)
    return x, y


def _fixed(where: str, record: Sweep, drawn: tuple[str, str], at: dict[str, Any]) -> dict[str, int]:
    """Of each axis that is not drawn, the position of its value."""
    for name in at:
        checks.choice(where, "at", name, tuple(n for n in record.axes if n not in drawn))
    out = {}
    for name, values in record.axes.items():
        if name not in drawn:
            wanted = at.get(name, values[-1])
            near = [i for i, v in enumerate(values) if v == wanted]
            if not near:
                raise checks.bad(where, f"at[{name!r}]", f"one of {', '.join(map(str, values))}", wanted)
            out[name] = near[0]
    return out


def _values(record: Sweep, name: str, x: str, y: str, rest: dict[str, int]) -> np.ndarray:
    """The statistic as (y, x)."""
    mean = record[name].mean
    mean = mean.mean(axis=-1) if mean.ndim > len(record.axes) + 1 else mean
    names, cut = list(record.axes), tuple(rest.get(n, slice(None)) for n in record.axes)
    kept = [n for n in names if n not in rest]
    mean, sites = mean[cut], record.sites[cut]
    if y == LAYER:
        return mean.T
    last = np.zeros_like(sites) if name.startswith(("log_grad", "grad", "weight_grad")) else sites - 1
    found = np.take_along_axis(mean, last[..., None], axis=-1)[..., 0]
    return found if kept == [y, x] else found.T


def _panel(ax: Axes, record: Sweep, name: str, x: str, y: str, rest: dict[str, int], theme: str) -> None:
    values, title = _values(record, name, x, y, rest), NAMES[name][0]
    logarithmic = name.startswith("log_")
    if logarithmic:
        values = values / _LN10
    shown = np.ma.masked_invalid(values)
    if logarithmic:
        reach = float(np.abs(shown).max()) if shown.count() else 1.0
        scale: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -reach or -1.0, "vmax": reach or 1.0}
    elif name.endswith(("fraction", "correlation")):
        scale = {
            "cmap": "viridis",
            "vmin": min(0.0, float(shown.min())) if shown.count() else 0.0,
            "vmax": 1.0,
        }
    else:
        scale = {"cmap": "viridis"}
    across, up = _ticks(ax, "x", record, x), _ticks(ax, "y", record, y)
    mesh = ax.pcolormesh(across, up, shown, shading="nearest", rasterized=True, **scale)
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
    bar.ax.tick_params(labelsize=8, colors=_style.THEMES[theme].ink)
    bar.outline.set_visible(False)
    ax.grid(False)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    end = "" if y == LAYER else (", first layer" if "grad" in name else ", last layer")
    ax.set_title(("log₁₀ " if logarithmic else "") + title + end)


def _ticks(ax: Axes, axis: str, record: Sweep, name: str) -> np.ndarray:
    """Where the values of an axis lie: evenly spaced or sorted numbers at their place, all else in order, named."""
    set_ticks: Any = getattr(ax, f"set_{axis}ticks")
    if name == LAYER:
        ticker = _style.matplotlib().ticker
        getattr(ax, f"{axis}axis").set_major_locator(ticker.MaxNLocator(nbins=8, integer=True))
        return np.arange(1, int(record.sites.max()) + 1)
    values = record.axes[name]
    if all(isinstance(v, (int, float)) for v in values):
        steps = np.diff(np.asarray(values, np.float64))
        if len(steps) and (steps > 0).all() and np.ptp(steps) <= 1e-6 * steps.max():
            return np.asarray(values, np.float64)
    places = np.arange(len(values))
    every = -(-len(values) // 12)
    set_ticks(places[::every], [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values[::every]])
    return places
