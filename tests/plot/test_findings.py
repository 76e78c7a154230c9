"""The map of a diagnosis: a bar spans the sites that a finding speaks of. The figure of the law of finite widths."""

import dataclasses

import numpy as np
import pytest

import jaxinit as ji
from jaxinit import plot
from jaxinit.records import Diagnosis, Finding


def finding(kind, severity, *where):
    return Finding(kind, severity, "what", where, "rate", 0.5, 0.4, 0.6, 0.9, 0.0, "4 seeds", "how", "here")


@pytest.fixture(scope="module")
def record():
    found = (
        finding("vanishing_signal", "error", "2", "9"), finding("dead_units", "warning", "5"),
        finding("odd", "note", "nowhere"),
    )  # fmt: skip
    sites = tuple(map(str, range(1, 11)))
    return Diagnosis("net", "simulation", sites, 4, found, "vanishing", "a sentence", ("a", "b"))


def test_bars_span_their_sites_worst_on_top(record):
    ax = record.plot().axes[0]
    spans = [(bar.get_x() + 0.35, bar.get_x() + bar.get_width() - 0.35) for bar in ax.patches]
    np.testing.assert_allclose(spans, [(2, 9), (5, 5), (1, 10)])  # what has no place is said of all
    assert [t.get_text() for t in ax.get_yticklabels()] == ["vanishing signal", "dead units", "odd"]
    assert [t.get_text() for t in ax.texts] == ["0.5  (0.9)"] * 3 + ["figure  (threshold)"]
    assert len({bar.get_facecolor() for bar in ax.patches}) == 3
    assert ax.get_xlabel() == "layer" and ax.get_title() == "net: vanishing"


def test_what_is_not_drawn_is_counted(record):
    many = dataclasses.replace(record, findings=record.findings * 10)
    figure = many.plot(theme="dark")
    assert len(figure.axes[0].patches) == 24
    assert figure.legends[0].get_title().get_text() == "2 checks made; 6 more findings"


def test_nothing_found_is_said(record):
    for sites in (record.sites, ("encoder/a", "encoder/b"), ()):
        well = dataclasses.replace(record, findings=(), sites=sites, word="alive")
        assert [t.get_text() for t in well.plot().axes[0].texts] == ["nothing found"]
        plot.png(well.plot())


def test_the_typical_draw_and_the_mean_part():
    law = ji.meanfield.finite_width(ji.Network(50, 100, "relu", weight_variance=2.0))
    signal, gradient = law.plot().axes
    typical, mean = signal.lines
    np.testing.assert_allclose(typical.get_ydata(), np.exp(law.log_mean))
    np.testing.assert_allclose(mean.get_ydata(), law.mean)
    assert mean.get_linestyle() == "--" and typical.get_label() == "typical draw"
    edge = signal.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(
        [edge.min(), edge.max()],
        np.exp([(law.log_mean - law.log_std).min(), (law.log_mean + law.log_std).max()]),
    )
    np.testing.assert_allclose(gradient.lines[1].get_ydata(), law.grad_mean)
