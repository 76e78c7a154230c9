"""A training comparison as a rich table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from jaxinit.records._fitted import FittedTable

if TYPE_CHECKING:
    from jaxinit.records._convergence import Convergence, Crossing
    from jaxinit.records._resampling import Estimate


def format_estimate(estimate: Estimate, steps: bool = False) -> str:
    """A figure and its interval: `0.951 [0.944, 0.958]`; `never` for an event that did not happen."""

    def show(x: float) -> str:
        if math.isinf(x):
            return "never" if steps else "inf"
        return f"{x:.0f}" if steps else f"{x:.3f}"

    value, low, high = show(estimate.value), show(estimate.low), show(estimate.high)
    return value if value == low == high else f"{value} [{low}, {high}]"


def format_crossing(crossing: Crossing) -> str:
    """Median steps to the threshold with its interval, and how many runs got there."""
    return f"{format_estimate(crossing.median, steps=True)} ({crossing.reached}/{len(crossing.steps)})"


def convergence_table(record: Convergence, threshold: float | None) -> Table:
    runs = f"{len(record.seeds)} seeds x {len(record.learning_rates)} learning rates x {record.steps} steps"
    measure = record.measure
    common = float(record.learning_rates[record.common_rate()])
    at_common_rate = f"test {measure} at lr {common:.3g}"
    table = FittedTable(
        title=Text(f"{record.label} ({runs})"),
        caption="Medians over seeds [95 % bootstrap interval]; diverged runs count as worst. "
        "▼ ▲: the smallest, the largest rate tried.",
        title_justify="left",
        caption_justify="left",
        expendable=(at_common_rate, "diverged", "best lr"),
    )
    best, edge, rate = record.best_rate(), record.at_edge(), record.divergence_rate()
    at_best, at_common = record.summary(), record.summary(at="common")
    crossings = record.steps_to(threshold)
    level = next(iter(crossings.values())).threshold
    sign = "≥" if measure == "accuracy" else "≤"
    table.add_column("initializer", no_wrap=True)
    table.add_column("best lr", justify="right")
    table.add_column(f"test {measure}", justify="right")
    table.add_column(f"steps to val. {measure} {sign} {level:.3g}", justify="right")
    table.add_column(at_common_rate, justify="right")
    table.add_column("diverged", justify="right")
    before = record.before_training()
    if before:
        table.add_column("before training: z² last / first", justify="right")
        table.add_column("dL/dW first / last", justify="right")
        table.add_column("silent units", justify="right")
    for i, name in enumerate(record.initializers):
        mark = {0: "", -1: " ▼", 1: " ▲"}[int(edge[i])]
        table.add_row(
            Text(name),
            f"{record.learning_rates[best[i]]:.3g}{mark}",
            format_estimate(at_best[name]),
            format_crossing(crossings[name]),
            format_estimate(at_common[name]),
            f"{100 * rate[i].mean():.0f} %",
            *(_start_cells(before[name]) if before else ()),
        )
    return table


def _start_cells(figures: dict[str, float]) -> tuple[str, str, str]:
    ratios = (
        "none" if math.isnan(figures[name]) else f"{figures[name]:.2g}" for name in ("signal", "gradient")
    )
    silent = figures["silent"]
    return (*ratios, "" if math.isnan(silent) else f"{100 * silent:.0f} %")  # type: ignore[return-value]
