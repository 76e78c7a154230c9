"""What happens inside networks while they train: a signal over steps and layers, one panel an initializer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxinit._core import checks
from jaxinit.plot import _style
from jaxinit.plot._training import _caption, _label, _require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "weight_rms": "root mean square of W",
    "grad_rms": "root mean square of dL/dW",
    "update_ratio": "norm of the next update over that of W",
    "second_moment": "mean of z²",
    "silent_fraction": "share of silent units (z ≤ 0 on every example)",
}


def training_signals(
    record: object, signal: str = "silent_fraction", *, at: str | float = "best", theme: str = "light"
) -> Figure:
    """A signal of `compare(..., signals=True)` over steps and layers, one panel an initializer.

    Colour is the median over the seeds that have not diverged or stopped; grey is where there is none. Shares have a
    linear scale from 0 to 1, all else a logarithmic one, the same for all panels.

    Arguments:
        record: a Convergence with signals.
        signal: "silent_fraction" (the dying of ReLUs), "second_moment", "grad_rms", "update_ratio" or "weight_rms".
        at: the learning rate: "best" for each initializer, "common" for all, or a rate of the study.
        theme: "light" or "dark".

    Raises:
        ValueError, TypeError: an argument breaks its rule, or no signals were recorded.

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.models import MLP
        >>> from jaxinit.plot import training_signals
        >>> record = ji.compare(MLP(3, 8, 10), ["he", "zeros"], "digits", seeds=1, learning_rates=[0.1], steps=4,
        ...                     signals=True)
        >>> [ax.get_title() for ax in training_signals(record).axes[:2]]
        ['he', 'zeros']
    """
    where = "training_signals"
    found = _require(where, record)
    if not found.signals:
        way_out = "Record them: compare(..., signals=True)."
        raise checks.bad(where, "record", "one with signals", found, way_out)
    checks.choice(where, "signal", signal, tuple(found.signals))
    rates = found.rates(at)
    values = found.runs(found.signals[signal].astype(np.float64), at)  # (I, S, E, site)
    there = np.isfinite(values)
    median = np.ma.masked_all((values.shape[0], *values.shape[2:]))
    some = there.any(axis=1)
    median[some] = np.nanmedian(np.where(there, values, np.nan).transpose(0, 2, 3, 1)[some], axis=-1)
    count = len(found.initializers)
    size = (3.0 + 3.2 * count, 4.2)
    figure, panels = _style.new_figure(1, count, size=size, theme=theme)
    colours, ink = _style.matplotlib().colors, _style.THEMES[theme].ink
    if signal == "silent_fraction":
        norm = colours.Normalize(0.0, 1.0)
    else:
        positive = median.compressed()[median.compressed() > 0]
        median = np.ma.masked_less_equal(median, 0.0)
        norm = colours.LogNorm(*((positive.min(), positive.max()) if positive.size else (0.1, 1.0)))
    edges = np.arange(len(found.sites) + 1) + 0.5
    steps = found.evaluated_at.astype(float)
    borders = np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
    for i, ax in enumerate(panels):
        ax.set_facecolor("0.6")
        mesh = ax.pcolormesh(borders, edges, median[i].T, norm=norm, cmap="viridis", rasterized=True)
        ax.grid(False)
        ax.set_title(_label(found, i, int(rates[i])), fontsize=10, color=ink)
        ax.set_xlabel("step")
        ax.yaxis.set_major_locator(_style.matplotlib().ticker.MaxNLocator(integer=True))
    panels[0].set_ylabel("kernel, from the input")
    bar = figure.colorbar(mesh, ax=panels)
    bar.set_label(_NAMES.get(signal, signal), color=ink)
    bar.ax.tick_params(which="both", colors=ink)
    bar.outline.set_visible(False)
    figure.suptitle(_caption(found, "none", at).replace("line: ", "colour: "), fontsize=9, color=ink)
    return figure
