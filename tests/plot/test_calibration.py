"""The figure of a calibration: rings before, marks after, a row a site."""

import dataclasses

import numpy as np

from jaxinit import plot
from jaxinit.records import CalibratedSite, Calibration


def made(**changes):
    sites = (
        CalibratedSite("a", "dot_general", ("a/kernel",), "converged", 2.0, 0.5, 16.0, 1.0, 1.0, 1),
        CalibratedSite("b", "dot_general", ("b/kernel",), "dead", 1.0, 1.0, 0.0, 0.0, 1.0, 0),
        CalibratedSite("c", "dot_general", (), "shared", np.nan, np.nan, 9.0, 3.0, np.nan, 0),
    )
    return dataclasses.replace(Calibration("model", "lsuv", "second moment", sites, 2), **changes)


def marks(ax):
    return [
        [float(v) for v in line.get_xdata()]
        for line in ax.lines
        if line.get_marker() not in (None, "None", "<", ">")
    ]


def test_before_and_after_of_every_site():
    figure = made().plot()
    statistic, weights = figure.axes
    before, after = marks(statistic)
    np.testing.assert_equal(
        (before, after), ([16.0, np.nan, 9.0], [1.0, np.nan, 3.0])
    )  # 0 stands on the edge
    np.testing.assert_equal(marks(weights), [[2.0, 1.0, np.nan], [0.5, 1.0, np.nan]])
    assert [t.get_text() for t in statistic.get_yticklabels()] == ["a", "! b", "c"]
    assert any(line.get_label() == "target" and line.get_xdata()[0] == 1 for line in statistic.lines)
    assert "lsuv: 1 converged, 1 shared, 1 dead" in figure.legends[0].get_title().get_text()
    assert plot.png(figure).startswith(b"\x89PNG")


def test_several_targets_are_no_line():
    sites = tuple(
        dataclasses.replace(s, target=t) for s, t in zip(made().sites, (1.0, 2.0, np.nan), strict=True)
    )
    assert not any(line.get_label() == "target" for line in made(sites=sites).plot().axes[0].lines)
