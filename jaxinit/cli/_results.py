"""Records to the terminal, to JSON and to a folder; shared by the commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxinit.cli._output import Output
    from jaxinit.records import Convergence, Propagation

#: Points of a sweep that figures and report show, evenly spaced.
POINTS = 8


def show_table(out: Output, content: Any) -> None:
    """A plain table of `jaxinit.report` under its title and over its note, which are wider than narrow tables."""
    from jaxinit.records._fitted import FittedTable

    table = FittedTable()
    for i, header in enumerate(content.headers):
        table.add_column(header, justify="right" if i or header == "layer" else "left", no_wrap=bool(i))
    for row in content.rows:
        table.add_row(*row)
    for part in (content.title, table, content.note):
        if part:
            out.say(part)


def show_depth(out: Output, records: dict[str, Propagation], max_rows: int = 16) -> None:
    """Signal, then gradient, by layer across the records; each record by itself where sites differ."""
    from jaxinit.report import depth_tables

    tables = depth_tables(records, max_rows)
    for table in tables:
        show_table(out, table)
    if not tables:
        for record in records.values():
            out.say(record.table())


def show_verdicts(out: Output, records: dict[str, Any]) -> list[dict[str, str]]:
    """Print a sentence a network; return them for JSON."""
    from rich.text import Text

    from jaxinit.diagnose import RULE
    from jaxinit.report import verdicts

    found = verdicts(records)
    tones = {"alive": "bold green", "": "bold"}
    for v in found:
        text = Text(f"{v.label}: ", style="bold")
        if v.word:
            text.append(f"{v.word}. ", style=tones.get(v.word, "bold red"))
        text.append(v.text[:1].upper() + v.text[1:] + ".", style="not bold")
        out.say(text, soft_wrap=not sys.stdout.isatty())
    if any(v.word for v in found):
        out.say(Text(RULE, style="dim"), soft_wrap=not sys.stdout.isatty())
    return [{"label": v.label, "word": v.word, "text": v.text} for v in found]


def propagation_json(record: Propagation) -> dict[str, Any]:
    """A Propagation as plain values."""
    statistics = {
        name: {"mean": s.mean, "stderr": s.stderr, "min": s.min, "max": s.max}
        for name, s in record.statistics()
    }
    return {
        "source": record.source, "sites": record.sites, "seeds": record.count, "statistics": statistics,
        "config": record.config, "provenance": record.provenance,
    }  # fmt: skip


def convergence_json(record: Convergence) -> dict[str, Any]:
    """A Convergence as plain values: every run's outcome, and the summary over seeds."""
    best = record.learning_rates[record.best_rate()]
    summary = {
        name: {"learning_rate": float(best[i]), "median": e.value, "low": e.low, "high": e.high}
        for i, (name, e) in enumerate(record.summary().items())
    }
    return {
        "measure": f"test_{record.measure}", "summary": summary, "runs": record.rows(),
        "config": record.config, "provenance": record.provenance,
    }  # fmt: skip


def file_name(label: str) -> str:
    """A label as a portable file name."""
    name = label.replace("√", "sqrt").replace("×", "x").replace("σ²", "variance")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "record"


def file_names(labels: Iterable[str]) -> dict[str, str]:
    """A file name of its own for each label."""
    names: dict[str, str] = {}
    for label in labels:
        name, n = file_name(label), 1
        while name in names.values():
            n += 1
            name = f"{file_name(label)}-{n}"
        names[label] = name
    return names


def draw(target: Path, records: dict[str, Any], *, kind: str = "png", theme: str = "light") -> list[Path]:
    """Save the figures: one of all Propagation records together, one of each other record that has one."""
    from jaxinit import plot
    from jaxinit.records import Propagation

    spread = {label: r for label, r in records.items() if isinstance(r, Propagation)}
    paths, names = [], file_names(records)
    if spread:
        paths.append(plot.save(plot.depth_profiles(spread, theme=theme), target / f"profiles.{kind}"))
    for label, record in records.items():
        if label not in spread and plot.drawable(record):
            paths.append(plot.save(plot.figure(record, theme=theme), target / f"{names[label]}.{kind}"))
    return paths


def write(folder: str, records: dict[str, Any], *, title: str, rerun: str) -> tuple[Path, list[Path]]:
    """Save every record, the figures and the report; returns the report's path and all paths."""
    from jaxinit.report import report

    target = Path(folder)
    names = file_names(records)
    paths = [record.save(target / f"{names[label]}.npz") for label, record in records.items()]
    paths += draw(target, records)
    page = report(records, target / "report.html", title=title, rerun=rerun)
    return page, [*paths, page]
