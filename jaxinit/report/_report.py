"""Records in, one HTML file out."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxinit._core import checks
from jaxinit._core.files import write_bytes
from jaxinit.diagnose import RULE, Verdict
from jaxinit.plot import curves, depth_profile, drawable, figure, learning_rate_sensitivity, svg
from jaxinit.plot._series import recorded
from jaxinit.records import Convergence, Diagnosis, Propagation, Record
from jaxinit.report import _html
from jaxinit.report._tables import Table, depth_tables, findings_table, from_rich, worst_table
from jaxinit.report._verdict import verdicts

_PANELS = {
    "log_second_moment": "Typical second moment of the pre-activations against depth",
    "log_grad_second_moment": "Typical second moment of the gradient against depth",
    "correlation": "Correlation of the pre-activations of two inputs against depth",
    "dead_fraction": "Share of units that are off for every input, against depth",
}
#: What the figure of a record shows.
_TOLD = {
    "Calibration": "each site before and after",
    "Diagnosis": "where along the network each finding lies",
    "FiniteWidth": "the typical draw and the mean over draws, by layer",
    "InitTable": "the size of the entries that were drawn, parameter by parameter",
    "ParameterStatistics": "gradients and first updates, parameter by parameter",
    "PhaseDiagram": "order, chaos, and the edge between them",
    "Spectrum": "density of the squared singular values of the Jacobian",
    "Suggestion": "each parameter as it is and as suggested",
    "Sweep": "what arrives, over the grid",
    "WidthTable": "what each parameter is multiplied with",
    "WidthTransfer": "size of each layer's value and of its change, against width",
}
#: Rows of a table at most; the records themselves have all.
_ROWS = 1000
_NAMED = 6  # in the heading
_NARROW = 6.5  # inches that stand side by side
_WARN = ("vanishing", "exploding", "chaotic", "collapsing", "uneven", "saturated")
_TONE = {"": "", "alive": "ok", **dict.fromkeys(_WARN, "warn")}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A record, the label it came with, and a name of its own."""

    name: str
    label: str
    record: Any


def entries(records: Any) -> list[Entry]:
    """What `report` takes, as a list with distinct names."""
    pairs: list[tuple[str, Any]] = []
    if isinstance(records, Mapping):
        for label, value in records.items():
            pairs += [(str(label), r) for r in (value if isinstance(value, (list, tuple)) else [value])]
    else:
        several = records if isinstance(records, Sequence) and not isinstance(records, str) else [records]
        pairs = [(str(getattr(r, "label", type(r).__name__)), r) for r in several]
    out: list[Entry] = []
    taken: set[str] = set()
    for label, record in pairs:
        if not isinstance(record, Record):
            rule = "a record of jaxinit, a sequence of them, or a mapping from labels to them"
            raise checks.wrong_type("report", "records", rule, record, "Load a saved one with ji.load(path).")
        name, n = label, 1
        if name in taken and isinstance(record, Propagation):
            name = f"{label} ({record.source})"
        while name in taken:
            n += 1
            name = f"{label} ({n})"
        taken.add(name)
        out.append(Entry(name, label, record))
    if not out:
        raise checks.bad("report", "records", "at least one record", records)
    return out


def _drawn(figure: Any, description: str) -> str:
    wide = figure.get_figwidth() > _NARROW
    return _html.picture(svg(figure, description), description, wide=wide)


def _colours(found: Sequence[Entry]) -> dict[str, int]:
    """One colour a label, in all figures of the page: networks first, then the initializers that were trained."""
    labels = [entry.label for entry in found if isinstance(entry.record, Propagation)]
    for entry in found:
        labels += entry.record.initializers if isinstance(entry.record, Convergence) else ()
    return {label: n for n, label in enumerate(dict.fromkeys(labels))}


def _depth_figures(spread: Sequence[Entry], colours: dict[str, int]) -> list[str]:
    """A figure a statistic, all records of one kind of sites together, those of one label in one colour."""
    families: dict[tuple[str, ...], dict[str, list[Propagation]]] = {}
    for entry in spread:
        sites = entry.record.sites
        key = ("layers",) if all(s.isdigit() for s in sites) else sites
        families.setdefault(key, {}).setdefault(entry.label, []).append(entry.record)
    out = []
    for family in families.values():
        everything = [r for group in family.values() for r in group]
        for statistic, description in _PANELS.items():
            if any(recorded(r, statistic) for r in everything):
                out.append(_drawn(depth_profile(family, statistic, colours=colours).figure, description))
    return out


def _training_figures(record: Convergence, colours: dict[str, int]) -> list[str]:
    measure = record.measure
    drawn = [
        (
            curves(record, "train_loss", colours=colours),
            "Training loss, each initializer at its best rate",
        ),
        (curves(record, f"validation_{measure}", colours=colours), f"Validation {measure} while training"),
    ]
    if len(record.learning_rates) > 1:
        words = f"Test {measure} against the learning rate"
        drawn.append((learning_rate_sensitivity(record, colours=colours), words))
    return [_drawn(ax.figure, words) for ax, words in drawn]


def _own_figure(name: str, record: Record) -> str:
    """The figure of a record that shares it with no other."""
    told = _TOLD.get(type(record).__name__, "")
    return _drawn(figure(record), f"{name}: {told}" if told else name)


def _listed(labels: Sequence[str]) -> str:
    """The labels, each once, the first of many."""
    names = list(dict.fromkeys(labels))
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested dict of plain values as dotted rows."""
    if isinstance(value, Mapping):
        return [row for k, v in value.items() for row in _flat(v, f"{prefix}.{k}" if prefix else str(k))]
    shown = str(value)
    return [(prefix, shown if len(shown) <= 300 else shown[:299] + "…")]


def _origin(records: Mapping[str, Any]) -> str:
    """Where the records come from: what most of them share once, by record what it has otherwise."""
    rows = {}
    for label, record in records.items():
        parts = {"config": getattr(record, "config", {}), "provenance": getattr(record, "provenance", {})}
        rows[label] = dict(_flat(parts))
    keys = list(dict.fromkeys(k for own in rows.values() for k in own))
    shared = {}
    for key in keys:
        value, n = Counter(own[key] for own in rows.values() if key in own).most_common(1)[0]
        if 2 * n > len(rows):
            shared[key] = value
    title = "All records, unless they say otherwise" if len(rows) > 1 else ""
    tables = [Table(title, ("what", "value"), tuple(shared.items()))] if shared else []
    for label, own in rows.items():
        differing = tuple((k, own[k]) for k in keys if k in own and own[k] != shared.get(k))
        if differing:
            tables.append(Table(label, ("what", "value"), differing))
    return "".join(_html.table(t, words=True) for t in tables)


def _own_table(record: Any) -> str:
    """The table of a record, whole where it can be asked for, as sentences where it is made of them."""
    whole = "max_rows" in inspect.signature(record.table).parameters
    return _html.table(
        from_rich(record.table(max_rows=_ROWS) if whole else record.table()),
        words=isinstance(record, Diagnosis),
    )


def _verdict_list(found: Sequence[Verdict]) -> str:
    items = [
        _html.element(
            "li",
            _html.element("strong", _html.text(v.label)) + ": ",
            _html.element("span", _html.text(v.word), class_="word") + ". " if v.word else "",
            _html.text(v.text[:1].upper() + v.text[1:] + "."),
            class_=_TONE.get(v.word, "bad"),
        )
        for v in found
    ]
    if not items:
        return ""
    return _html.element("ul", *items, class_="verdicts") + _html.element(
        "p", _html.text(RULE), class_="soft"
    )


def report(
    records: Any, path: str | os.PathLike[str], *, title: str | None = None, rerun: str | None = None
) -> Path:
    """Write one self-contained HTML file about any records: verdict, findings, worst layers, figures, tables, origin.

    Arguments:
        records: a record, a sequence of records, or a mapping from labels to records (a label may hold a
            list, such as the simulation and the theory of one network).
        path: the file to write, in a folder that is made if need be; replaced atomically.
        title: heading of the page; made from the records by default.
        rerun: the command or code that makes the records again, shown at the end.

    The file needs no network and no other file. Its figures are drawings inside it that follow the reader's light or
    dark theme (print is light); a click on a header sorts a table, by keyboard too, and without scripts the page is
    whole. A label has one colour in all figures. Needs the extra `plot`.

    Returns:
        The path written.

    Raises:
        TypeError, ValueError: `records` holds something else, or nothing.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> from jaxinit.records import Propagation, Statistic
        >>> from jaxinit.report import report
        >>> log_q = Statistic.exact(np.log(0.5) * np.arange(20)[:, None])
        >>> record = Propagation("theory", tuple(map(str, range(1, 21))), inputs=1, log_second_moment=log_q)
        >>> path = report({"xavier": record}, pathlib.Path(tempfile.mkdtemp()) / "xavier.html")
        >>> "vanishing" in path.read_text(encoding="utf-8")
        True
    """
    found = entries(records)
    named = {entry.name: entry.record for entry in found}
    spread = {name: r for name, r in named.items() if isinstance(r, Propagation)}
    others = {name: r for name, r in named.items() if name not in spread}
    colours = _colours(found)
    figures = _depth_figures([entry for entry in found if isinstance(entry.record, Propagation)], colours)
    for name, record in others.items():
        if isinstance(record, Convergence):
            figures += _training_figures(record, colours)
        elif drawable(record):
            figures.append(_own_figure(name, record))
    worst, faults = worst_table(spread), findings_table(spread)
    tables = [_html.table(t) for t in depth_tables(spread)]
    tables += [_own_table(record) for record in others.values()]
    heading = title or ("Signal propagation: " if spread else "") + _listed([entry.label for entry in found])
    created = max((str(getattr(r, "provenance", {}).get("created", "")) for r in named.values()), default="")
    subtitle = f"jaxinit report of {len(named)} record{'s' * (len(named) > 1)}" + (
        f", {created}" if created else ""
    )
    content = _html.page(
        heading,
        subtitle,
        (
            _html.section("Verdict", _verdict_list(verdicts(named))),
            _html.section("Findings", _html.table(faults, words=True)) if faults else "",
            _html.section("Worst layers", _html.table(worst, words=True)) if worst else "",
            _html.section("Figures", _html.element("div", *figures, class_="figures")) if figures else "",
            _html.section("Tables", *tables),
            _html.section("Where the numbers come from", _origin(named)),
            _html.section("Run it again", _html.element("pre", _html.text(rerun))) if rerun else "",
        ),
    )
    target = checks.path("report", "path", path)
    write_bytes(target, content.encode("utf-8"))
    return target
