"""Records as rich tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxinit.records._fitted import FittedTable

if TYPE_CHECKING:
    from jaxinit.records._propagation import Propagation
    from jaxinit.records._sites import ParameterStatistics

_LN10 = math.log(10.0)


def format_log(log_value: float) -> str:
    """exp(log_value) in three digits, also where it is no float: `3.2e-3010`."""
    if math.isnan(log_value):
        return "nan"
    if log_value == -math.inf:
        return "0"
    if log_value == math.inf:
        return "inf"
    if abs(log_value) < 300.0:
        return f"{math.exp(log_value):.3g}"
    exponent = math.floor(log_value / _LN10)
    return f"{10 ** (log_value / _LN10 - exponent):.2f}e{exponent:+d}"


def format_figure(mean: float, stderr: float) -> str:
    """A mean with its standard error, `0.731 ± 0.004`; the mean alone where there is none."""
    if not math.isfinite(mean) or not math.isfinite(stderr) or stderr == 0.0:
        return f"{mean:.3g}"
    if stderr < 1e-6 * abs(mean):
        return f"{mean:.3g}"
    decimals = max(0, -math.floor(math.log10(stderr))) if 1e-4 < abs(mean) < 1e5 else None
    if decimals is None:
        return f"{mean:.2e} ± {stderr:.0e}"
    return f"{mean:.{decimals}f} ± {stderr:.{decimals}f}"


def shown(sites: int, max_rows: int) -> np.ndarray:
    """Indices of the rows to show: all, or evenly spaced ones with the first and the last.

    Not every second or third one: rows of models come in turns, and kernels without their biases would be left.
    """
    if sites <= max_rows:
        return np.arange(sites)
    return np.unique(np.round(np.linspace(0, sites - 1, max_rows)).astype(int))


def propagation_table(record: Propagation, max_rows: int, marks: Sequence[str] = ()) -> Table:
    count = "exact" if record.count == 0 else f"{record.count} seeds"
    rows = shown(len(record.sites), max_rows)
    columns = (_model_columns if record.layout else _network_columns)(record, rows)
    if any(marks):
        columns.append(("", [marks[i] for i in rows]))
    notes = ["✗ error, ! warning, ? likely: jaxinit.diagnose says what"] if any(marks) else []
    if len(rows) < len(record.sites):
        notes.append(f"{len(rows)} of {len(record.sites)} sites (max_rows={max_rows})")
    table = FittedTable(
        title=Text(f"{record.label} ({record.source}, {count})"), title_justify="left",
        expendable=("‖dL/dW‖", "grad corr.", "shape", "dead", "corr."),
        caption="; ".join(notes) or None, caption_justify="left",
    )  # fmt: skip
    table.add_column(
        "site", justify="right" if all(s.isdigit() for s in record.sites) else "left", no_wrap=True
    )
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for n, i in enumerate(rows):
        table.add_row(Text(record.sites[i]), *(cells[n] for _, cells in columns))
    return table


def _network_columns(record: Propagation, rows: np.ndarray) -> list[tuple[str, list[str]]]:
    """Columns of a canonical network: few sites, figures with their errors."""
    columns = []
    for title, name in (
        ("⟨z²⟩ typical", "log_second_moment"),
        ("⟨(dL/dz)²⟩ typical", "log_grad_second_moment"),
    ):
        stat = getattr(record, name)
        if stat is not None:
            columns.append((title, [format_log(float(stat.mean[i].mean())) for i in rows]))
    for title, name in (
        ("corr.", "correlation"),
        ("grad corr.", "grad_correlation"),
        ("dead", "dead_fraction"),
        ("‖dL/dW‖", "weight_grad_norm"),
    ):
        stat = getattr(record, name)
        if stat is not None and stat.mean.size:
            mean, stderr = stat.mean, stat.stderr
            if mean.ndim == 2:
                mean, stderr = mean[:, 0], stderr[:, 0]
            columns.append((title, [format_figure(float(mean[i]), float(stderr[i])) for i in rows]))
    return columns


def _model_columns(record: Propagation, rows: np.ndarray) -> list[tuple[str, list[str]]]:
    """Columns of a probed model: long names, so figures without their errors; a dash where there is none."""
    columns = [("shape", ["×".join(map(str, record.layout[i].shape)) for i in rows])]
    for title, name, logs in (
        ("rms", "log_second_moment", True),
        ("corr.", "correlation", False),
        ("grad rms", "log_grad_second_moment", True),
        ("dead", "dead_fraction", False),
    ):
        stat = getattr(record, name)
        if stat is None or not stat.mean.size:
            continue
        figures = stat.mean.reshape(len(stat.mean), -1)
        figures = figures.mean(axis=1) / 2 if logs else figures[:, 0]
        cells = [(format_log(float(v)) if logs else f"{v:.3g}") if not np.isnan(v) else "–" for v in figures]
        columns.append((title, [cells[i] for i in rows]))
    return columns


def _or_dash(mean: float, stderr: float) -> str:
    """The figure, or a dash where it does not exist."""
    return "–" if math.isnan(mean) else format_figure(float(mean), float(stderr))


def parameter_table(record: ParameterStatistics, max_rows: int) -> Table:
    table = FittedTable(title=Text(f"{record.label} ({record.norm.count} seeds)"), title_justify="left")
    rows = shown(len(record.names), max_rows)
    table.add_column("parameter", no_wrap=True)
    table.add_column("shape", justify="right", no_wrap=True)
    columns = []
    for name, stat in record.statistics():
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
        columns.append([_or_dash(stat.mean[i], stat.stderr[i]) for i in rows])
    for n, i in enumerate(rows):
        shape = "×".join(map(str, record.shapes[i]))
        table.add_row(Text(record.names[i]), shape, *(cells[n] for cells in columns))
    return table
