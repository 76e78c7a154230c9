"""Training comparisons: curves over steps, and how much the learning rate matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit._core import checks
from jaxinit.plot import _style
from jaxinit.plot._style import Colours
from jaxinit.records import Convergence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS = ("range", "quartiles", "none")
CURVES = ("train_loss", "validation_loss", "validation_accuracy")
_NAMES = {
    "train_loss": "training loss (batch)",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "test_loss": "test loss",
    "test_accuracy": "test accuracy",
}
_POINTS = 100  # a curve of more steps is shown as means over windows


def _require(where: str, record: Any) -> Convergence:
    if not isinstance(record, Convergence):
        raise checks.wrong_type(where, "record", "a Convergence record", record)
    return record


def _metric(where: str, record: Convergence, metric: str, known: Sequence[str]) -> str:
    checks.choice(where, "metric", metric, tuple(known))
    if getattr(record, metric) is None:
        raise checks.bad(where, "metric", "recorded (this task has no accuracy)", metric)
    return metric


def _held(curves: np.ndarray, stopped: np.ndarray) -> np.ndarray:
    """Curves `(..., steps)` with the last value held where a run was stopped at its goal."""
    if not (stopped >= 0).any():
        return curves
    there = np.where(np.isnan(curves), 0, np.arange(curves.shape[-1]))
    filled = np.take_along_axis(curves, np.maximum.accumulate(there, axis=-1), axis=-1)
    return np.where((stopped >= 0)[..., None], filled, curves)


def _windows(x: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Means over windows of steps, so that at most `_POINTS` points are drawn."""
    width = -(-len(x) // _POINTS)
    if width == 1:
        return x, curves, 1
    starts = np.arange(0, len(x), width)
    sizes = np.diff(np.append(starts, len(x)))
    sums = np.add.reduceat(curves, starts, axis=-1)
    return np.add.reduceat(x, starts) / sizes, sums / sizes, width


def _over_seeds(values: np.ndarray, band: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, low and high over the leading axis, of the runs that are finite; nan where none is."""
    finite = np.where(np.isfinite(values), values, np.nan)
    some = np.isfinite(finite).any(axis=0)
    safe = np.where(some, finite, 0.0)
    levels = {"range": (0.0, 1.0), "quartiles": (0.25, 0.75), "none": (0.5, 0.5)}[band]
    low, middle, high = (
        np.where(some, q, np.nan) for q in np.nanquantile(safe, (levels[0], 0.5, levels[1]), axis=0)
    )
    return middle, low, high


def _caption(record: Convergence, band: str, at: str | float | None) -> str:
    n = len(record.seeds)
    text = "line: median" if n > 1 else "line: the run"
    if n > 1 and band != "none":
        text += "; band: " + ("min to max" if band == "range" else "quartiles")
    text += f" over {n} seeds" if n > 1 else " of 1 seed"
    if at is None:
        return text
    if isinstance(at, str):
        return text + ("; each at its best learning rate" if at == "best" else "; all at one learning rate")
    return text + f"; at learning rate {at:g}"


def _label(record: Convergence, i: int, r: int | None) -> str:
    """Name, learning rate, and how many of its runs diverged there (or at any rate)."""
    name = record.initializers[i]
    lost = record.diverged()[i] if r is None else record.diverged()[i, r]
    notes = [] if r is None or len(record.learning_rates) == 1 else [f"lr {record.learning_rates[r]:.3g}"]
    if lost.any():
        notes.append(f"{lost.sum()} of {lost.size} runs diverged")
    return name + (f" ({', '.join(notes)})" if notes else "")


def _log_worthy(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() / finite.min() > 10)


def _draw_curves(
    ax: Axes,
    record: Convergence,
    metric: str,
    at: str | float,
    band: str,
    numbers: dict[str, int],
    theme: str,
) -> list[Any]:
    per_step = metric == "train_loss"
    x = np.arange(record.steps, dtype=float) if per_step else record.evaluated_at.astype(float)
    values = _held(record[metric].astype(np.float64), record.stopped_at)
    width = 1
    if per_step:
        x, values, width = _windows(x, values)
    handles, drawn = [], []
    for i, r in enumerate(record.rates(at)):
        look = _style.look(numbers[record.initializers[i]], theme)
        middle, low, high = _over_seeds(values[i, r], band)
        every = max(1, len(x) // 8)
        (line,) = ax.plot(
            x, middle, color=look.colour, linestyle=look.dash, linewidth=1.6, marker=look.marker,
            markersize=4.5, markevery=((i * every) // 4 % every, every), label=_label(record, i, int(r)),
        )  # fmt: skip
        ax.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0, zorder=1.5)
        handles.append(line)
        drawn += [low, high]
    if metric.endswith("accuracy"):
        ax.set_ylim(-0.03, 1.03)
    elif _log_worthy(np.concatenate(drawn)):
        ax.set_yscale("log")
    ax.set_xlabel("step" + (f" (means over {width})" if width > 1 else ""))
    ax.set_ylabel(_NAMES[metric])
    return handles


def curves(
    record: Convergence,
    metric: str = "train_loss",
    *,
    ax: Axes | None = None,
    at: str | float = "best",
    band: str = "range",
    colours: Colours = None,
    theme: str = "light",
) -> Axes:
    """A metric over training steps, one line an initializer; returns the Axes.

    Arguments:
        record: a Convergence.
        metric: "train_loss" (of each step's batch), "validation_loss" or "validation_accuracy".
        ax: where to draw; a new figure by default.
        at: the learning rate: "best" for each initializer, "common" for all, or a rate of the study.
        band: "range" (least to greatest over seeds), "quartiles" or "none"; the line is the median.
        colours: numbers of colours by initializer, so that one keeps its own from figure to figure; others follow.
        theme: "light" or "dark", for a new figure.

    Diverged runs leave the picture where they diverge, and the legend counts them. Runs that were stopped at
    their goal keep their last value. Beyond 100 steps, means over windows are drawn.

    Raises:
        ValueError, TypeError: an argument breaks its rule, or the metric was not recorded.

    Example:
        >>> import numpy as np
        >>> from jaxinit.plot import curves
        >>> from jaxinit.records import Convergence
        >>> runs = (2, 1, 3)  # initializers, learning rates, seeds
        >>> record = Convergence(
        ...     ("he", "zeros"), np.array([0.1]), np.arange(3), evaluated_at=np.array([0, 5]),
        ...     train_loss=np.ones((*runs, 5)), validation_loss=np.ones((*runs, 2)), test_loss=np.ones(runs),
        ...     validation_accuracy=None, test_accuracy=None, diverged_at=np.full(runs, -1),
        ...     stopped_at=np.full(runs, -1))
        >>> curves(record, "validation_loss").get_ylabel()
        'validation loss'
    """
    record = _require("curves", record)
    metric = _metric("curves", record, metric, CURVES)
    checks.choice("curves", "band", band, BANDS)
    ax, new = _style.panel(ax, theme)
    numbers = _style.numbers(record.initializers, colours)
    handles = _draw_curves(ax, record, metric, at, band, numbers, theme)
    _style.legend(
        ax.figure if new else ax, handles, title=_caption(record, band, at), theme=theme if new else None
    )
    return ax


def _draw_rates(
    ax: Axes, record: Convergence, metric: str, band: str, numbers: dict[str, int], theme: str
) -> list[Any]:
    order = np.argsort(record.learning_rates)
    rates = np.asarray(record.learning_rates, np.float64)[order]
    final, best = record.final(metric), record.best_rate()
    handles, drawn = [], []
    for i in range(len(record.initializers)):
        look = _style.look(numbers[record.initializers[i]], theme)
        middle, low, high = _over_seeds(final[i, order].T, band)
        (line,) = ax.plot(
            rates, middle, color=look.colour, linestyle=look.dash, linewidth=1.6, marker=look.marker,
            markersize=5, label=_label(record, i, None),
        )  # fmt: skip
        ax.fill_between(rates, low, high, color=look.colour, alpha=0.16, linewidth=0, zorder=1.5)
        at = int(np.flatnonzero(order == best[i])[0])
        ax.plot(
            rates[at], middle[at], marker="o", markersize=11, markerfacecolor="none",
            markeredgecolor=look.colour, linestyle="none",
        )  # fmt: skip
        handles.append(line)
        drawn += [low, high]
    ax.set_xscale("log")
    ticker = _style.matplotlib().ticker
    shown = rates[:: -(-len(rates) // 6)]
    ax.set_xticks(shown, [f"{rate:.3g}" for rate in shown])
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    if metric.endswith("accuracy"):
        ax.set_ylim(-0.03, 1.03)
    elif _log_worthy(np.concatenate(drawn)):
        ax.set_yscale("log")
    ax.set_xlabel("learning rate")
    ax.set_ylabel(f"{_NAMES[metric]} after {record.steps} steps")
    return handles


def learning_rate_sensitivity(
    record: Convergence,
    metric: str | None = None,
    *,
    ax: Axes | None = None,
    band: str = "range",
    colours: Colours = None,
    theme: str = "light",
) -> Axes:
    """A final metric against the learning rate, one line an initializer; returns the Axes.

    The metric is the test accuracy (or loss, where there is no accuracy) unless named. A diverged run counts
    as the worst outcome: accuracy 0; in losses it is left out and counted in the legend. A ring marks the
    rate that validation data chose. The other arguments are those of `curves`.

    Raises:
        ValueError, TypeError: an argument breaks its rule, or the metric was not recorded.

    Example:
        >>> import numpy as np
        >>> from jaxinit.plot import learning_rate_sensitivity
        >>> from jaxinit.records import Convergence
        >>> runs = (2, 2, 3)  # initializers, learning rates, seeds
        >>> record = Convergence(
        ...     ("he", "zeros"), np.array([0.1, 1.0]), np.arange(3), evaluated_at=np.array([0, 5]),
        ...     train_loss=np.ones((*runs, 5)), validation_loss=np.ones((*runs, 2)), test_loss=np.ones(runs),
        ...     validation_accuracy=None, test_accuracy=None, diverged_at=np.full(runs, -1),
        ...     stopped_at=np.full(runs, -1))
        >>> learning_rate_sensitivity(record).get_ylabel()
        'test loss after 5 steps'
    """
    where = "learning_rate_sensitivity"
    record = _require(where, record)
    metric = _metric(where, record, metric or f"test_{record.measure}", tuple(_NAMES))
    checks.choice(where, "band", band, BANDS)
    ax, new = _style.panel(ax, theme)
    numbers = _style.numbers(record.initializers, colours)
    handles = _draw_rates(ax, record, metric, band, numbers, theme)
    caption = _caption(record, band, None) + "; ring: chosen on validation data"
    _style.legend(ax.figure if new else ax, handles, title=caption, theme=theme if new else None)
    return ax


def training(
    record: Convergence,
    *,
    at: str | float = "best",
    band: str = "range",
    colours: Colours = None,
    theme: str = "light",
) -> Figure:
    """The training loss, the validation accuracy (or loss) and the learning rates, side by side.

    The arguments are those of `curves`; returns the Figure. One learning rate needs no third panel.

    Example:
        >>> import numpy as np
        >>> from jaxinit.plot import training
        >>> from jaxinit.records import Convergence
        >>> runs = (2, 1, 3)  # initializers, learning rates, seeds
        >>> record = Convergence(
        ...     ("he", "zeros"), np.array([0.1]), np.arange(3), evaluated_at=np.array([0, 5]),
        ...     train_loss=np.ones((*runs, 5)), validation_loss=np.ones((*runs, 2)), test_loss=np.ones(runs),
        ...     validation_accuracy=None, test_accuracy=None, diverged_at=np.full(runs, -1),
        ...     stopped_at=np.full(runs, -1))
        >>> len(training(record).axes)
        2
    """
    record = _require("training", record)
    checks.choice("training", "band", band, BANDS)
    several = len(record.learning_rates) > 1
    figure, panels = _style.new_figure(1, 2 + several, size=(5.0 * (2 + several), 4.4), theme=theme)
    numbers = _style.numbers(record.initializers, colours)
    handles = _draw_curves(panels[0], record, "train_loss", at, band, numbers, theme)
    _draw_curves(panels[1], record, f"validation_{record.measure}", at, band, numbers, theme)
    caption = _caption(record, band, at)
    if several:
        _draw_rates(panels[2], record, f"test_{record.measure}", band, numbers, theme)
        caption += "; ring: rate chosen on validation data"
    _style.legend(figure, handles, title=caption, theme=theme)
    return figure
