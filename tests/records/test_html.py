"""Records shown and compared: `_repr_html_` is the table of the terminal, escaped, for light and dark pages."""

import copy
import dataclasses
import html.parser
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import jaxinit as ji
import jaxinit.records
from jaxinit.adapt import InitTable, init_table
from jaxinit.meanfield import FiniteWidth, finite_width
from jaxinit.records import (
    CalibratedSite,
    Calibration,
    Diagnosis,
    Finding,
    ParameterStatistics,
    PhaseDiagram,
    Propagation,
    Record,
    Spectrum,
    Statistic,
    SuggestedLayer,
    Suggestion,
    Sweep,
    WidthRule,
    WidthSlope,
    WidthTable,
    WidthTransfer,
)

HOSTILE = "<script>alert('x')</script> & [bold]"


class Reader(html.parser.HTMLParser):
    """Cells and tags of a page; fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th", "p"):
            self.text.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag, before = self.text[-1]
        self.text[-1] = (tag, before + data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def relabel(record: Record) -> Record:
    """The record under a label that no page may interpret."""
    record.config["label"] = HOSTILE
    return record


def samples(synthetic: Any) -> dict[type, Record]:
    q = Statistic.of(np.exp(np.linspace(0, -2, 3))[None, :, None] * np.ones((4, 3, 1)))
    axes = np.ones(2), np.ones(3)
    finding = Finding(
        "vanishing_signal",
        "error",
        HOSTILE,
        ("1",),
        "rate",
        0.5,
        0.4,
        0.6,
        0.9,
        0.0,
        "4 seeds",
        HOSTILE,
        "here",
    )
    site = CalibratedSite(HOSTILE, "gather", (HOSTILE,), "dead", 1.0, 2.0, 0.0, 0.0, 1.0, 1, HOSTILE)
    numbered = Propagation("simulation", ("1", "2", "3"), 1, log_second_moment=q)
    made = [
        relabel(Propagation("simulation", ("1", HOSTILE, "3"), 1, log_second_moment=q)),
        relabel(
            PhaseDiagram(
                "tanh",
                *axes,
                *[np.ones((2, 3))] * 8,
                *[np.full((2, 3), "word")] * 2,
                *[np.ones((2, 3))] * 3,
                *axes,
            )
        ),
        relabel(Spectrum(axes[0], axes[0], None, np.zeros(1), np.ones(1), 0.0, 1.0, np.ones(2), 1.0)),
        relabel(synthetic.convergence()),
        Diagnosis(HOSTILE, "simulation", ("1",), 4, (finding,), "vanishing", "a sentence", ("a check",)),
        Calibration(HOSTILE, "lsuv", "variance", (site,), 2),
        Sweep.of({HOSTILE: (1.0, 2.0)}, [numbered, numbered]),
        finite_width(ji.Network(3, 8, "relu", weight_variance=2.0)),
        dataclasses.replace(init_table({HOSTILE: np.ones((3, 2), np.float32)}), label=HOSTILE),
        Suggestion(
            HOSTILE,
            (
                SuggestedLayer(
                    HOSTILE, "Dense", "kernel_init", "ji.zeros()", "zeros", 0.0, 0.0, 1.0, 1.0, HOSTILE
                ),
            ),
        ),
        WidthTable(
            HOSTILE, 1.0, 2.0, (WidthRule(HOSTILE, (1, 2), (2, 4), "hidden", 2, 2, 0.7, 1.0, 0.5, 1.0, 1.0),)
        ),
        WidthTransfer(
            HOSTILE,
            np.array([1.0, 2.0, 4.0]),
            1,
            (HOSTILE,),
            np.zeros((2, 3, 1, 2, 1)),
            np.zeros((3, 1, 2)),
            (
                WidthSlope(HOSTILE, 0, "value", 0.0, -0.1, 0.1, "flat"),
                WidthSlope(HOSTILE, 1, "change", 1.0, 0.9, 1.1, "grows"),
            ),
            0.15,
        ),
        ParameterStatistics((HOSTILE,), ((3, 2),), Statistic.of(np.ones((4, 1))), label=HOSTILE),
    ]
    return {type(record): record for record in made}


@pytest.fixture(scope="module")
def records(synthetic: Any) -> dict[type, Record]:
    return samples(synthetic)


#: The public records, and those that areas have beside them.
KINDS = [c for c in vars(jaxinit.records).values() if isinstance(c, type) and issubclass(c, Record)]
KINDS = [*KINDS, FiniteWidth, InitTable]
KINDS.remove(Record)


@pytest.mark.parametrize("kind", KINDS, ids=lambda c: c.__name__)
def test_every_record_shows_its_table(kind: type[Record], records: dict[type, Record]) -> None:
    record = records[kind]
    table, page = record.table(), read(record._repr_html_())
    assert not {"script", "bold", "style"} & {tag for tag, _ in page.tags}
    rows = list(zip(*([str(c) for c in column.cells] for column in table.columns), strict=True))
    assert [t for tag, t in page.text if tag == "td"] == [cell for row in rows for cell in row]
    headers = [str(c.header) for c in table.columns] if table.show_header else []
    assert [t for tag, t in page.text if tag == "th"] == headers
    notes = [str(t) for t in (table.title, table.caption) if t is not None]
    assert [t for tag, t in page.text if tag == "p"] == notes
    assert kind is FiniteWidth or HOSTILE in notes[0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda c: c.__name__)
def test_terminals_take_labels_as_they_are(kind: type[Record], records: dict[type, Record]) -> None:
    """rich would read [bold] as markup, and fail at [/x]."""
    stream = io.StringIO()
    Console(file=stream, width=300).print(records[kind].table())
    assert kind is FiniteWidth or "[bold]" in stream.getvalue()


def test_nothing_but_translucent_lines_has_a_colour_of_its_own(records: dict[type, Record]) -> None:
    """Light and dark pages differ in ink and paper: both are inherited."""
    for record in records.values():
        for tag, attributes in read(record._repr_html_()).tags:
            style = attributes.get("style") or ""
            assert "#" not in style and "black" not in style and "white;" not in style
            if tag in ("td", "th"):
                assert "color: inherit" in style and "background: transparent" in style


def test_wide_tables_scroll_in_their_own_box(records: dict[type, Record]) -> None:
    page = records[Propagation]._repr_html_()
    assert page.startswith("<div") and "overflow-x: auto" in page[: page.index(">")]


def test_the_escape_is_what_keeps_it_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twin: without it the hostile label would be a tag."""
    from jaxinit.records import _html

    record = Diagnosis(HOSTILE, "simulation", ("1",), 4, (), "alive", "well", ("a check",))
    stream = io.StringIO()
    Console(file=stream, width=80).print(record)
    assert "well" in stream.getvalue() and "│" not in stream.getvalue() and "─" not in stream.getvalue()
    assert "script" not in {tag for tag, _ in read(record._repr_html_()).tags}
    monkeypatch.setattr(_html, "_plain", str)
    assert "script" in {tag for tag, _ in read(record._repr_html_()).tags}


@pytest.mark.parametrize("kind", KINDS, ids=lambda c: c.__name__)
def test_every_record_has_a_figure(kind: type[Record], records: dict[type, Record]) -> None:
    assert ji.plot.drawable(records[kind])


@pytest.mark.parametrize("kind", KINDS, ids=lambda c: c.__name__)
def test_records_compare_by_what_they_say(
    kind: type[Record], records: dict[type, Record], tmp_path: Path
) -> None:
    record = records[kind]
    for again in (
        ji.load(record.save(tmp_path / "record.npz")),
        copy.deepcopy(record),
        pickle.loads(pickle.dumps(record)),
    ):
        assert again == record and hash(again) == hash(record)
    changed = next(f.name for f in dataclasses.fields(record) if f.name not in ("provenance", "config"))
    assert record != dataclasses.replace(record, **{changed: "another"}) and record != "another"
    if hasattr(record, "provenance"):
        assert record == dataclasses.replace(record, provenance={"device": "another"})


def test_equality_sees_one_number_and_takes_nan(records: dict[type, Record]) -> None:
    figures = np.array([[1.0, np.nan]])
    one, two = Statistic.of(figures), Statistic.of(figures.copy())
    assert one == two and np.isnan(one.stderr).all()
    assert one != Statistic.of(figures + 1e-12)
    record = records[Propagation]
    assert record != dataclasses.replace(record, log_second_moment=record.log_grad_second_moment)


@pytest.mark.parametrize("width", [80, 60, 50])
def test_narrow_terminals_leave_columns_out_and_no_figure_is_cut(synthetic: Any, width: int) -> None:
    record = synthetic.propagation(0.5, 3000, seeds=4)
    stream = io.StringIO()
    Console(file=stream, width=width).print(record)
    text = stream.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    titles = {80: (), 60: ("dead",), 50: ("dead", "corr.")}[width]
    note = text.partition("not shown at this width: ")[2].split("\n")[0].strip()
    assert note == ", ".join(sorted(titles))


def test_a_table_as_a_string_is_plain_text(synthetic: Any) -> None:
    record = synthetic.propagation(0.5, 3, seeds=4)
    text = str(record.table())
    assert "object at" not in text and "\x1b" not in text and max(map(len, text.splitlines())) <= 120
    assert text.splitlines()[0] == f"{record.label} (simulation, 4 seeds)" and "⟨z²⟩ typical" in text
