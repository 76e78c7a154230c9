"""Figures with a row a parameter: which mark stands where, and what has no place on a logarithmic axis."""

import numpy as np
import pytest

import jaxinit as ji
from jaxinit import plot
from jaxinit.records import ParameterStatistics, Statistic, SuggestedLayer, Suggestion, WidthRule, WidthTable


def marked(ax):
    """The places of the marks of a panel, a row of the table each; without those on the edges."""
    return [
        (np.asarray(line.get_xdata()), line.get_marker())
        for line in ax.lines
        if line.get_marker() not in (None, "None", "<", ">")
    ]


def edges(ax):
    return {line.get_marker(): list(line.get_ydata()) for line in ax.lines if line.get_marker() in "<>"}


def statistics(n=3):
    norms = np.linspace(1.0, 2.0, n)[None] * np.ones((4, 1))
    ratios = np.outer([0.5, 1.0, 1.5, 2.0], np.logspace(-3, 0, n))
    ratios[:, 1] = 0.0
    ratios[:, 2] = np.nan
    return ParameterStatistics(
        tuple(f"params/layer_{i}/kernel" for i in range(n)), ((2, 2),) * n, Statistic.of(norms),
        gradient_norm=Statistic.of(norms * 2), gradient_ratio=Statistic.of(ratios),
    )  # fmt: skip


def test_means_and_ranges_over_seeds():
    figure = statistics().plot()
    gradient, ratio = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["Gradient", "Relative gradient"]
    ((places, _),) = marked(gradient)
    np.testing.assert_allclose(places, [2.0, 3.0, 4.0])
    ((places, _),) = marked(ratio)
    np.testing.assert_allclose(places, [1.25e-3, np.nan, np.nan])
    bars = ratio.collections[0].get_segments()
    np.testing.assert_allclose(bars[0][:, 0], [0.5e-3, 2e-3])
    assert edges(ratio) == {"<": [1]} and edges(gradient) == {}  # 0 has no place, nan none at all
    assert [t.get_text() for t in gradient.get_yticklabels()] == [f"layer_{i}/kernel" for i in range(3)]
    assert figure.legends[0].get_title().get_text() == "bar: min to max over 4 seeds; on the edge: 0"


def test_many_parameters_are_thinned_out_and_it_says_so():
    figure = statistics(200).plot()
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert len(names) == 60 and names[0] == "layer_0/kernel" and names[-1] == "layer_199/kernel"
    assert "60 of 200 rows" in figure.legends[0].get_title().get_text()
    assert figure.axes[0].get_ylim() == (59.5, -0.5)  # the first is on top


def test_an_init_table_stands_beside_the_schemes():
    rng = np.random.default_rng(0)
    params = {
        "a": {"kernel": rng.normal(0, (2 / 400) ** 0.5, (400, 300)).astype("f4"), "bias": np.zeros(300, "f4")}
    }
    figure = ji.init_table(params).plot()
    entries, scaled = figure.axes
    ((places, _),) = marked(scaled)
    np.testing.assert_allclose(places, [np.nan, 2.0], rtol=0.02)
    assert sorted(line.get_xdata()[0] for line in scaled.lines if line.get_label()[:2] in ("le", "he")) == [
        1,
        2,
    ]
    assert edges(entries) == {"<": [0]}


def test_a_suggestion_leads_from_what_is_to_what_should_be():
    layers = tuple(
        SuggestedLayer(f"l{n}", "Dense", "kernel_init", "ji.he_normal()", "normal", 0.2, 0.1 * n, 1.0, 0.5**n)
        for n in (1, 2)
    )
    spread, signal = Suggestion("model", layers).plot().axes
    (now, ring), (then, dot) = marked(spread)
    assert ring != dot and list(now) == [0.1, 0.2] and list(then) == [0.2, 0.2]
    assert [list(x) for x, _ in marked(signal)] == [[0.5, 0.25], [1.0, 1.0]]
    assert [list(s[:, 0]) for s in signal.collections[0].get_segments()] == [[0.5, 1.0], [0.25, 1.0]]


def test_a_width_table_shows_its_factors():
    rule = WidthRule("w", (2, 2), (8, 8), "hidden", 4, 4, 0.5, float("nan"), 0.25, 1.0, 1.0)
    figure = WidthTable("model", 2, 8, (rule,)).plot()
    init, rates = figure.axes
    factors = [[float(x[0]) for x, _ in marked(ax)] for ax in (init, rates)]
    assert factors[0][0] == 0.5 and np.isnan(factors[0][1])  # the model's own law is not known
    assert factors[1] == [0.25, 1.0]
    assert "from width 2 to 8" in figure.legends[0].get_title().get_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_numbers_that_no_axis_holds(theme):
    record = ParameterStatistics(
        ("$a$", "b" * 90), ((1,), (1,)), Statistic.of(np.asarray([[0.0, np.inf]])), label="odd"
    )
    assert plot.png(record.plot(theme=theme)).startswith(b"\x89PNG")
    figure = record.plot()
    assert edges(figure.axes[0]) == {"<": [0], ">": [1]}
    assert len(figure.axes[0].get_yticklabels()[1].get_text()) == 34


def test_other_records_are_refused(propagation):
    with pytest.raises(TypeError, match="Suggestion"):
        plot.parameters(propagation())
