"""Tables as plain lists, for the terminal and for the page alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinit.diagnose import diagnose, seeds
from jaxinit.records import Propagation
from jaxinit.records._tables import format_figure, format_log, shown


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, a row of headers, rows of cells, a note on what the numbers are, and the columns that hold words."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: frozenset[int] = frozenset()


_BY_DEPTH = {
    "log_second_moment": "Signal by layer: typical ⟨z²⟩",
    "log_grad_second_moment": "Gradient by layer: typical ⟨(∂L/∂z)²⟩",
}


def findings_table(records: Mapping[str, Propagation]) -> Table | None:
    """A row a finding of `diagnose`, record after record, worst first; None if there is none."""
    rows = tuple(
        (label, f.severity, f.place, f.what, f.remedy, f.certainty, f.source)
        for label, record in records.items()
        for f in diagnose(record)
    )
    headers = ("record", "severity", "where", "what", "change", "certainty", "source of the threshold")
    return Table("", headers, rows) if rows else None


def seeds_note(counts: set[int]) -> str:
    """`64 seeds`, `4–64 seeds`, `theory`."""
    real = sorted(c for c in counts if c)
    return f"{real[0]}–{seeds(real[-1])}" if len(real) > 1 else seeds(real[0] if real else 0)


def depth_table(records: Mapping[str, Propagation], statistic: str, max_rows: int = 16) -> Table | None:
    """One logarithmic statistic by site, a column a record; None if there is none or their sites differ."""
    chosen = {label: r for label, r in records.items() if getattr(r, statistic) is not None}
    if not chosen:
        return None
    sites = next(iter(chosen.values())).sites
    if any(r.sites != sites for r in chosen.values()):
        return None
    rows = []
    for i in shown(len(sites), max_rows):
        cells = [format_log(float(getattr(r, statistic).mean[i].mean())) for r in chosen.values()]
        rows.append((sites[i], *cells))
    count = seeds_note({getattr(r, statistic).count for r in chosen.values()})
    note = f"exp of the mean over {count} of the log, averaged over inputs"
    if len(rows) < len(sites):
        note += f"; {len(rows)} of {len(sites)} sites"
    first = "layer" if all(s.isdigit() for s in sites) else "site"
    return Table(_BY_DEPTH[statistic], (first, *chosen), tuple(rows), note)


def depth_tables(records: Mapping[str, Propagation], max_rows: int = 16) -> list[Table]:
    """Signal and gradient by layer, a column a record; empty where the records' sites differ."""
    tables = (depth_table(records, statistic, max_rows) for statistic in _BY_DEPTH)
    return [table for table in tables if table is not None]


def _least(record: Propagation, statistic: str) -> str:
    stat = getattr(record, statistic)
    if stat is None or not stat.mean.size:
        return "–"
    with np.errstate(invalid="ignore"):
        mean = stat.mean.mean(axis=1)
    odd = np.isnan(mean)
    i = int(np.argmax(odd)) if odd.any() else int(np.argmin(mean))
    return f"{format_log(float(mean[i]))} at {record.sites[i]}"


def _sharpest(record: Propagation, statistic: str) -> str:
    stat = getattr(record, statistic)
    if stat is None or len(record.sites) < 2 or not np.isfinite(stat.mean).all():
        return "–"
    step = np.diff(stat.mean.mean(axis=1))
    i = int(np.argmax(np.abs(step)))
    return f"×{format_log(float(step[i]))} from {record.sites[i]} to {record.sites[i + 1]}"


def _greatest(record: Propagation, statistic: str) -> str:
    stat = getattr(record, statistic)
    if stat is None or not np.isfinite(stat.mean).any():
        return "–"
    mean, stderr = stat.mean.reshape(len(record.sites), -1), stat.stderr.reshape(len(record.sites), -1)
    i, j = np.unravel_index(np.nanargmax(mean), mean.shape)
    return f"{format_figure(float(mean[i, j]), float(stderr[i, j]))} at {record.sites[i]}"


def worst_table(records: Mapping[str, Propagation]) -> Table | None:
    """A row a record: where its signal and gradient are weakest, where they jump, where units are dead."""
    if not records:
        return None
    columns = (
        ("weakest signal", _least, "log_second_moment"),
        ("weakest gradient", _least, "log_grad_second_moment"),
        ("sharpest change of the signal", _sharpest, "log_second_moment"),
        ("most units off", _greatest, "dead_fraction"),
        ("inputs most alike", _greatest, "correlation"),
    )
    kept = [c for c in columns if any(getattr(r, c[2]) is not None for r in records.values())]
    rows = tuple((label, *(cell(r, name) for _, cell, name in kept)) for label, r in records.items())
    if not kept:
        return None
    note = (
        "typical second moments; share of units that are off for every input; correlation of two inputs; "
        "after “at”: the site"
    )
    return Table("", ("record", *(title for title, _, _ in kept)), rows, note)


def from_rich(table: Any) -> Table:
    """The table that a record draws on a terminal, as plain text."""
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    headers = tuple(str(column.header) for column in table.columns)
    words = frozenset(n for n, column in enumerate(table.columns) if n and column.justify == "left")
    rows = tuple(zip(*cells, strict=True))
    return Table(str(table.title or ""), headers, rows, str(table.caption or ""), words)
