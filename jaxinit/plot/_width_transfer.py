"""The coordinate check: size against width, one panel a quantity, one line a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit.plot import _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxinit.records import WidthTransfer

#: Of the fitted line, by verdict; dashed for the others.
_DASHES = {"flat": "-", "unclear": ":"}
#: Of the vertical axis, in decades: noise must not look like a slope.
_LEAST_SPAN = 1.5


def width_transfer(record: WidthTransfer, *, theme: str = "light", step: int | None = None) -> Figure:
    """Root mean square of each layer's initial value, and of its change after training steps, against width.

    Points are means of log rms over seeds, bars their range; a line is the fit whose slope the legend gives.

    Arguments:
        record: a WidthTransfer.
        theme: "light" or "dark".
        step: after which the change is shown; the last by default.

    Example:
        >>> import jax, optax, flax.linen as nn
        >>> from jaxinit import adapt, plot
        >>> model = lambda width: nn.Sequential([nn.Dense(width), nn.relu, nn.Dense(1)])
        >>> x = jax.random.normal(jax.random.key(1), (8, 4))
        >>> check = adapt.coordinate_check(model, [8, 16, 32], x, optimizer=optax.sgd(0.1), steps=1, seeds=2)
        >>> [ax.get_xlabel() for ax in plot.width_transfer(check).axes]
        ['width', 'width']
    """
    step = record.steps if step is None else step
    figure, panels = _style.new_figure(1, 2, size=(10.8, 4.6), theme=theme)
    lines: Any = _style.matplotlib().lines
    ticker: Any = _style.matplotlib().ticker
    x = np.log(record.widths)
    handles = []
    for ax, (q, quantity, at) in zip(panels, ((0, "value", 0), (1, "change", step)), strict=True):
        for n, site in enumerate(record.sites):
            look = _style.look(n, theme)
            y = record.log_rms[q, :, :, at, n]
            if not np.isfinite(y).all():
                continue
            mean = y.mean(axis=1)
            bars = np.exp(mean) - np.exp(y.min(axis=1)), np.exp(y.max(axis=1)) - np.exp(mean)
            ax.errorbar(
                record.widths, np.exp(mean), yerr=np.maximum(bars, 0.0), color=look.colour, marker=look.marker,
                markersize=4.5, linestyle="", elinewidth=0.9,
            )  # fmt: skip
            fit = record.at(site, quantity, at)
            line = np.exp(mean.mean() + fit.slope * (x - x.mean()))
            ax.plot(
                record.widths,
                line,
                color=look.colour,
                linewidth=1.4,
                linestyle=_DASHES.get(fit.verdict, "--"),
            )
            if q == 1:
                label = f"{site}: {fit.slope:+.2f} [{fit.low:+.2f}, {fit.high:+.2f}] {fit.verdict}"
                handles.append(
                    lines.Line2D([], [], color=look.colour, marker=look.marker, markersize=4.5, label=label)
                )
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel("width")
        ax.set_xticks(record.widths, [f"{width:g}" for width in record.widths])
        low, high = ax.get_ylim()
        room = max(0.0, (_LEAST_SPAN - np.log10(high / low)) / 2)
        ax.set_ylim(low / 10**room, high * 10**room)
        ax.yaxis.set_minor_formatter(ticker.NullFormatter())
    panels[0].set_ylabel("rms")
    panels[0].set_title("initial value")
    panels[1].set_title(f"change after {step} step{'s' * (step > 1)}")
    seeds = record.log_rms.shape[2]
    title = f"slopes of the change, 95 % interval over {seeds} seeds; dashed: not flat, dotted: unclear"
    _style.legend(figure, handles, title=title, theme=theme)
    return figure
