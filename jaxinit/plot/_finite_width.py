"""The exact law of a network of finite width: what a single draw does, and what the mean over draws hides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit.plot import _style
from jaxinit.plot._depth import draw_panel
from jaxinit.plot._series import LN10, Series, log10

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def finite_width(record: Any, *, theme: str = "light") -> Figure:
    """Second moments of signal and gradient by layer: the typical draw with its band, and the mean over draws.

    The line is exp E[log q], the band one standard deviation of log q to either side: about two thirds of all draws.
    The dashed line is E[q], ruled by rare draws; they part as depth grows against width.

    Arguments:
        record: a FiniteWidth, from `jaxinit.meanfield.finite_width`.
        theme: "light" or "dark".

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.plot import finite_width
        >>> law = ji.meanfield.finite_width(ji.Network(50, 100, "relu", weight_variance=2.0))
        >>> [ax.get_title() for ax in finite_width(law).axes]
        ['Signal: second moment', 'Gradient: second moment']
    """
    _style.require("finite_width", record, "FiniteWidth")
    sites = tuple(str(n + 1) for n in range(len(record.mean)))
    x = np.arange(1.0, len(sites) + 1)
    figure, panels = _style.new_figure(1, 2, theme=theme)
    for ax, prefix in zip(panels, ("", "grad_"), strict=True):
        name = f"log_{prefix}second_moment"
        middle, spread, mean = (getattr(record, prefix + part) for part in ("log_mean", "log_std", "mean"))
        low, high = (middle - spread) / LN10, (middle + spread) / LN10
        typical = Series("typical draw", x, middle / LN10, low, high, 0, True, name, sites)
        centre = log10(mean)
        rare = Series("mean over draws", x, centre, centre, centre, 0, True, name, sites, 1)
        handles = draw_panel(ax, [(typical, False), (rare, True)], name, theme)
    _style.legend(figure, handles, title="band: ± 1 standard deviation of the logarithm", theme=theme)
    return figure
