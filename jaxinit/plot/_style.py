"""One look for every figure: colours, markers, a figure without pyplot.

Nothing here touches matplotlib's global state (no pyplot, no rcParams), so figures can be made from any
thread and in any notebook.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxinit._core import checks
from jaxinit._core.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe & Ito (2008), "Color Universal Design"; yellow is left out on white, black on dark.
_OKABE_ITO_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_OKABE_ITO_DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442", "#FFFFFF")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (4, 1.5, 1, 1.5)))


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of one background."""

    background: str
    ink: str
    faint: str
    series: tuple[str, ...]


THEMES = {
    "light": Theme("#ffffff", "#1b1f24", "#d5d9de", _OKABE_ITO_LIGHT),
    "dark": Theme("#15181c", "#e4e7eb", "#3a4048", _OKABE_ITO_DARK),
}


@dataclasses.dataclass(frozen=True)
class Look:
    """How one series is drawn: never by colour alone."""

    colour: str
    marker: str
    dash: Any


def look(index: int, theme: str = "light") -> Look:
    """The look of the series number `index`; 21 are distinct."""
    colours = THEMES[theme].series
    turn = index // len(colours)
    return Look(
        colours[index % len(colours)],
        _MARKERS[(index + turn) % len(_MARKERS)],
        _DASHES[turn % len(_DASHES)],
    )


#: Label -> number of its look, where a caller wants the same in several figures.
Colours = Mapping[str, int] | None


def numbers(labels: Iterable[str], colours: Colours = None) -> dict[str, int]:
    """The number of each label's look: the one given, else the least that is free."""
    if not isinstance(colours, (Mapping, type(None))):
        raise checks.wrong_type(
            "plot", "colours", "a dict from labels to numbers of colours, or None", colours
        )
    labels, known = list(labels), dict(colours or {})
    free = (n for n in itertools.count() if n not in known.values())
    return {label: known[label] if label in known else next(free) for label in labels}


def matplotlib() -> Any:
    """The package, with its submodules in use imported; ImportError says how to install it."""
    try:
        for part in ("axes", "figure", "ticker", "lines", "patches", "transforms", "backends.backend_agg"):
            importlib.import_module(f"matplotlib.{part}")
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'jaxinit[plot]'.") from error


@functools.cache
def _figure_class() -> Any:
    """A Figure that a notebook shows although pyplot knows nothing of it."""

    class Figure(matplotlib().figure.Figure):  # type: ignore[misc]
        def _repr_png_(self) -> bytes:
            return png(self)

    return Figure


def new_figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, theme: str = "light"
) -> tuple[Figure, list[Axes]]:
    """A dressed figure with rows x columns panels, in reading order."""
    rows = checks.integer("new_figure", "rows", rows, at_least=1)
    columns = checks.integer("new_figure", "columns", columns, at_least=1)
    checks.choice("plot", "theme", theme, tuple(THEMES))
    if size is not None:
        if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
            raise checks.wrong_type("new_figure", "size", "(width, height) in inches, or None", size)
        size = (
            checks.number("new_figure", "size", size[0], above=0),
            checks.number("new_figure", "size", size[1], above=0),
        )
    canvas = matplotlib().backends.backend_agg.FigureCanvasAgg
    size = size or (5.2 * columns, 3.7 * rows + 0.5)
    figure = _figure_class()(figsize=size, dpi=110, layout="constrained", facecolor=THEMES[theme].background)
    canvas(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for ax in panels.flat:
        dress(ax, theme)
    return figure, list(panels.flat)


def dress(ax: Axes, theme: str = "light") -> Axes:
    """The house look of one panel: light grid, two spines, small ticks, the theme's colours for what is drawn next."""
    colours = THEMES[theme]
    ax.set_prop_cycle(color=colours.series)
    ax.set_facecolor(colours.background)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours.ink)
        spine.set_linewidth(0.8)
    ax.tick_params(which="both", colors=colours.ink, labelsize=9)
    ax.tick_params(which="minor", length=2)
    ax.grid(True, which="major", color=colours.faint, linewidth=0.6)
    ax.set_axisbelow(True)
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        text.set_color(colours.ink)
        text.set_fontsize(10)
    return ax


def panel(ax: Axes | None, theme: str, size: tuple[float, float] = (5.8, 4.3)) -> tuple[Axes, bool]:
    """The caller's axes untouched, or those of a new figure; and whether they are new."""
    if ax is not None:
        return ax, False
    return new_figure(size=size, theme=theme)[1][0], True


def legend(
    target: Any,
    handles: Sequence[Any],
    *,
    title: str = "",
    theme: str | None = "light",
    columns: int | None = None,
) -> Any:
    """A legend: under the panels of a figure, or inside axes that belong to the caller (theme None)."""
    labels = [handle.get_label() for handle in handles]
    style: dict[str, Any] = {
        "fontsize": 9,
        "title": title or None,
        "title_fontsize": 8.5,
        "handlelength": 2.8,
    }
    if theme is None:
        return target.legend(handles, labels, **style)
    width = max((len(label) for label in labels), default=1)
    room = int(target.get_size_inches()[0] * 13)
    fitting = max(1, min(len(labels), room // (width + 8)))
    box = target.legend(
        handles, labels, loc="outside lower center", ncols=columns or fitting, frameon=False, **style
    )
    for text in (*box.get_texts(), box.get_title()):
        text.set_color(THEMES[theme].ink)
    return box


def require(where: str, record: Any, kind: str) -> None:
    """Raises for what is no record of this kind, a class by name."""
    if type(record).__name__ != kind:
        raise checks.wrong_type(where, "record", f"a {kind}", record, "`figure` draws a record of any kind.")


def require_figure(where: str, figure: Any) -> None:
    """Raises for what is no figure of matplotlib."""
    if not hasattr(figure, "savefig"):
        raise checks.wrong_type(
            where, "figure", "a matplotlib Figure", figure, "Make one with `figure(record)`."
        )


def _dpi(where: str, figure: Figure, dpi: Any) -> float:
    """Dots per inch at which the figure has no more than 2^16 on a side."""
    most = 2.0**16 / float(max(figure.get_size_inches()))
    return float(checks.number(where, "dpi", dpi, at_least=1, at_most=most))


def png(figure: Figure, dpi: float = 160) -> bytes:
    """The figure as PNG bytes."""
    require_figure("png", figure)
    dpi, buffer = _dpi("png", figure, dpi), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def save(figure: Figure, path: str | os.PathLike[str], dpi: float = 160) -> Path:
    """Write a figure atomically, in the format that the suffix names (.png, .svg, .pdf).

    Raises ValueError for a suffix that matplotlib cannot write, and for `dpi` at which it has more than 2^16 dots on
    a side.

    Example:
        >>> import tempfile, pathlib
        >>> from jaxinit.plot import new_figure, save
        >>> figure, panels = new_figure(1, 2)
        >>> save(figure, pathlib.Path(tempfile.mkdtemp()) / "empty.png").name
        'empty.png'
    """
    target = checks.path("save", "path", path)
    require_figure("save", figure)
    dpi = _dpi("save", figure, dpi)
    kinds = figure.canvas.get_supported_filetypes()
    kind = target.suffix.lower().lstrip(".")
    if kind not in kinds:
        raise checks.bad("save", "path", "a file name that ends in " + ", ".join(sorted(kinds)), str(target))
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, facecolor=figure.get_facecolor())
    write_bytes(target, buffer.getvalue())
    return target
