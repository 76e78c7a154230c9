"""The page is whole, safe and self-contained, and says first what matters."""

import base64
import hashlib
import importlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxinit import Network
from jaxinit.diagnose import diagnose
from jaxinit.meanfield import finite_width
from jaxinit.records import SuggestedLayer, Suggestion, Sweep
from jaxinit.report import report

LAYER = SuggestedLayer("l", "Dense", "kernel_init", "ji.he_normal()", "normal", 0.2, 0.1, 1.0, 0.5)

_VOID = {"meta", "img", "source", "br"}  # elements of svg close themselves


class Reader(HTMLParser):
    """Checks nesting, collects text, headings and every reference to another file."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.headings, self.links, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.links += [
            values[k] for k in ("src", "srcset", "href", "xlink:href", "data", "action") if k in values
        ]
        assert not [k for k in values if k.startswith("on")], "no script in attributes"
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def read(path):
    reader = Reader()
    source = path.read_text(encoding="utf-8")
    reader.feed(source)
    assert not reader.open
    return source, reader


@pytest.fixture(scope="module")
def page(synthetic, tmp_path_factory):
    p = synthetic.propagation
    records = {
        "xavier": [p(0.5), p(0.5, seeds=0)],
        "he": p(1.0),
        "training": synthetic.convergence(("xavier", "he")),
    }
    path = report(
        records, tmp_path_factory.mktemp("r") / "new" / "page.html", rerun="jaxinit demo --out <here>"
    )
    return read(path)


def test_everything_is_inside_the_file(page):
    source, reader = page
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in reader.links)
    assert "link" not in reader.tags and "@import" not in source
    assert all(inside.startswith("url(#") for inside in re.findall(r"url\(.", source) or ["url(#"])
    assert set(re.findall(r"https?://[\w./]+", source)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    assert reader.tags.count("figure") == reader.tags.count("svg") == 7  # 4 profiles, 3 of training
    ids = re.findall(r' id="([^"]+)"', source)
    assert len(ids) == len(set(ids))


def test_one_script_may_run_and_nothing_be_loaded(page):
    source, reader = page
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', source)
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and policy.endswith(f"script-src 'sha256-{digest}'")
    assert reader.tags.count("script") == 1


def test_the_verdict_comes_first_and_the_way_back_last(page):
    _, reader = page
    assert reader.headings == [
        "Signal propagation: xavier, he, training",
        "Verdict", "Findings", "Worst layers", "Figures", "Tables", "Where the numbers come from", "Run it again",
    ]  # fmt: skip


def test_one_verdict_speaks_of_signal_gradient_and_training(page):
    text = "".join(page[1].text)
    assert "xavier: vanishing. The typical signal ⟨z²⟩ goes from 1 at layer 1 to 1.86e-09" in text
    assert "×0.5" in text and "(8 seeds)" in text
    assert re.search(r"he: alive\.[^.]*.*Training: test accuracy", text)
    assert "xavier (theory): vanishing" in text
    assert "min to max" not in text  # that is in the figures


def test_findings_come_with_their_remedy_and_source(page):
    text = "|".join(page[1].text)
    found = text.split("|Findings|")[1].split("|Worst layers|")[0]
    rows = found.split("xavier|error|layers 1 to 30|")
    assert len(rows) == 3  # signal and gradient; the theory's rows are labelled so
    assert "The signal falls by ×0.5" in rows[1] and "The gradient falls by ×0.5" in rows[2]
    assert "kernel_init=ji." in rows[1] and "He et al. 2015" in rows[1]
    assert "|he|" not in found


def test_it_works_on_phone_paper_and_in_the_dark(page):
    source, _ = page
    assert 'name="viewport"' in source
    assert "@media print" in source and source.count("--figure-0: ") == 2  # light, and dark on screens
    assert source.index("prefers-color-scheme: dark") < source.index("--figure-0: #56B4E9")
    assert source.count('class="wide"') == source.count("<table")


def test_a_long_table_scrolls_and_is_printed_in_part(synthetic, tmp_path):
    law = finite_width(Network(50, 8, "relu", weight_variance=2.0))
    source, reader = read(report({"law": law}, tmp_path / "r.html"))
    assert source.count('class="wide long"') == 1 and "nth-child(n + 40) ~ tr" in source
    assert source.count("<tr>") == 51  # the header and all layers
    assert "40 of 50 rows are printed; the page has all." in reader.text
    source, reader = read(
        report({"law": finite_width(Network(40, 8, "relu", weight_variance=2.0))}, tmp_path / "r.html")
    )
    assert 'class="wide long"' not in source


def test_what_most_records_share_is_said_once(synthetic, tmp_path):
    """Also where one record has none of it; what only half of them share is said of each."""
    p = synthetic.propagation
    records = {"a": p(width=64), "b": p(width=64), "c": p(width=128), "d": p()}
    text = "|".join(read(report(records, tmp_path / "r.html"))[1].text).split("All records, unless")[1]
    shared, own = text.split("|a|", 1)
    assert "versions.jax" in shared and "config.width" not in shared
    assert own.count("config.width|64") == 2 and own.count("config.width|128") == 1 and "versions" not in own


def test_columns_of_words_stand_left(tmp_path):
    source, _ = read(report({"m": Suggestion("m", (LAYER,))}, tmp_path / "r.html"))
    assert (
        '<td class="left">Dense(..., kernel_init=ji.he_normal())</td>' in source and "<td>0.2</td>" in source
    )


def test_a_heading_names_the_first_of_many(synthetic, tmp_path):
    records = {f"run {n}": synthetic.propagation(depth=3) for n in range(9)}
    _, reader = read(report(records, tmp_path / "r.html"))
    assert (
        reader.headings[0] == "Signal propagation: " + ", ".join(f"run {n}" for n in range(6)) + " and 3 more"
    )


def test_figures_have_descriptions(page):
    source, _ = page
    said = re.findall(r'role="img" aria-label="([^"]*)"', source)
    assert len(said) == 7 and all(len(words) > 10 for words in said)


def test_labels_and_config_are_escaped(synthetic, tmp_path):
    evil = "<script>alert('x')</script>&\""
    record = synthetic.propagation(0.5, 5, note=evil)
    _, reader = read(report({evil: record}, tmp_path / "r.html", title=evil, rerun=evil))
    assert reader.tags.count("script") == 1 and reader.headings[0] == evil


def test_every_record_is_told(synthetic, tmp_path):
    """A diagnosis by its map and its table, a sweep by its heat maps."""
    record = synthetic.propagation(0.5)
    records = {"found": diagnose(record), "grid": Sweep.of({"n": (1, 2)}, [record, record])}
    source, reader = read(report(records, tmp_path / "r.html"))
    assert reader.headings[1:4] == ["Verdict", "Figures", "Tables"] and reader.tags.count("figure") == 2
    assert (
        source.count('<figure class="whole" tabindex="0">') == 2
        and "found: where along the network" in source
    )
    assert "found: vanishing" in "".join(reader.text)
    assert 'data-label="what">The signal falls' in source  # rows are cards on a phone


def test_a_label_keeps_its_colour_from_figure_to_figure(synthetic, tmp_path):
    """Training has the initializers in another order than the networks, and one more of them."""
    p = synthetic.propagation
    records = {"he": p(1.0), "xavier": p(0.5), "training": synthetic.convergence(("zeros", "xavier", "he"))}
    source, _ = read(report(records, tmp_path / "r.html"))
    figures = re.findall(r"<figure.*?</figure>", source, re.S)
    hues = [list(dict.fromkeys(re.findall(r"stroke: var\(--figure-(\d)", f))) for f in figures]
    assert len(hues) == 7 and hues[:4] == [["0", "1"]] * 4  # he, xavier
    assert hues[4:] == [["2", "1", "0"]] * 3  # zeros, xavier, he: in the order of the study


def test_records_alone_and_in_lists(synthetic, tmp_path):
    p = synthetic.propagation
    _, reader = read(report(p(0.5, label="solo"), tmp_path / "a.html"))
    assert reader.headings[0] == "Signal propagation: solo"
    _, reader = read(report([p(0.5), p(0.5)], tmp_path / "b.html"))
    assert reader.headings[0] == "Signal propagation: synthetic"
    _, reader = read(report(synthetic.convergence(), tmp_path / "c.html"))
    assert "Worst layers" not in reader.headings and "Run it again" not in reader.headings


def test_what_differs_between_records_stands_apart(synthetic, tmp_path):
    p = synthetic.propagation
    _, reader = read(report({"a": p(0.5, width=64), "b": p(0.5, width=128)}, tmp_path / "r.html"))
    text = "|".join(reader.text)
    shared, own = text.split("All records")[1].split("|a|", 1)
    assert "versions.jax" in shared and "config.width" not in shared
    assert "config.width|64" in own and "config.width|128" in own


def test_the_old_file_is_replaced_whole_or_not_at_all(synthetic, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")
    module = importlib.import_module("jaxinit.report._report")
    with monkeypatch.context() as patch:
        patch.setattr(module, "depth_profile", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            report(synthetic.propagation(), path)
    assert path.read_text() == "old"
    report(synthetic.propagation(depth=3), path)
    assert [f.name for f in tmp_path.iterdir()] == ["r.html"] and len(path.read_text(encoding="utf-8")) > 1000


def test_records_that_hold_odd_numbers(synthetic, tmp_path):
    record = synthetic.propagation(0.5, 6)
    record.log_second_moment.mean[2:] = np.nan
    record.correlation.mean[:] = np.nan
    _, reader = read(report({"odd": record, "one site": synthetic.propagation(depth=1)}, tmp_path / "r.html"))
    assert "odd: not finite" in "".join(reader.text)


@pytest.mark.parametrize(
    ("records", "error"),
    [(3, TypeError), ("he", TypeError), ({"a": 3}, TypeError), ([], ValueError), ({}, ValueError)],
)
def test_what_is_no_record_is_refused(records, error, tmp_path):
    with pytest.raises(error, match=r"records=\.\.\."):
        report(records, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())
