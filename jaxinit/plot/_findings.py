"""A diagnosis as a map: where along the network each finding lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit.plot import _style
from jaxinit.plot._sites import name_sites
from jaxinit.records import Diagnosis
from jaxinit.records._depth import positions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOKS = {"error": 1, "warning": 4, "likely": 5, "note": 0}
_ROWS = 24  # as many as the table shows


def findings(record: Diagnosis, *, theme: str = "light") -> Figure:
    """The findings of a Diagnosis over the sites they speak of, worst on top; returns the Figure.

    On the right stands the measured figure and, in brackets, the threshold. A diagnosis without findings is an empty
    map under its verdict.

    Arguments:
        record: a Diagnosis.
        theme: "light" or "dark".

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.plot import findings
        >>> network = ji.Network(30, 64, "relu", weight_variance=1.0)
        >>> ax = findings(ji.diagnose(ji.meanfield.propagate(network))).axes[0]
        >>> ax.get_yticklabels()[0].get_text()
        'vanishing signal'
    """
    found = record.findings[:_ROWS]
    rows = max(len(found), 3)
    size = (8.2, 1.7 + 0.3 * rows + (0.0 if _numbered(record) else 0.9))
    figure, (ax,) = _style.new_figure(size=size, theme=theme)
    colours = _style.THEMES[theme]
    x = positions(record.sites)
    place = dict(zip(record.sites, x.tolist(), strict=True))
    whole = (float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    for row, f in enumerate(found):
        known = [place[name] for name in f.where if name in place]
        low, high = (min(known), max(known)) if known else whole
        ax.barh(
            row, high - low + 0.7, left=low - 0.35, height=0.55, color=_style.look(_LOOKS[f.severity], theme).colour
        )  # fmt: skip
        told = f"{f.value:.3g}" + (f"  ({f.threshold:.3g})" if np.isfinite(f.threshold) else "")
        ax.text(
            1.02, row, told, transform=ax.get_yaxis_transform(), va="center", fontsize=8, color=colours.ink
        )
    ax.set_xlim(whole[0] - 0.6, whole[1] + 0.6)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_yticks(range(len(found)), [f.kind.replace("_", " ") for f in found], fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    name_sites(ax, x, record.sites)
    ax.set_title(f"{record.label}: {record.word or 'no verdict'}".replace("$", r"\$"))
    style: dict[str, Any] = {"transform": ax.transAxes, "fontsize": 8, "color": colours.ink}
    if found:
        ax.text(1.02, 1.02, "figure  (threshold)", **style)
    else:
        ax.text(0.5, 0.5, "nothing found", ha="center", va="center", **style)
    patches: Any = _style.matplotlib().patches
    seen = dict.fromkeys(f.severity for f in found)
    handles = [patches.Patch(color=_style.look(_LOOKS[s], theme).colour, label=s) for s in seen]
    left = len(record.findings) - len(found)
    caption = f"{len(record.checked)} checks made" + (f"; {left} more findings" if left else "")
    _style.legend(figure, handles, title=caption, theme=theme)
    return figure


def _numbered(record: Diagnosis) -> bool:
    return all(name.isdigit() for name in record.sites)
