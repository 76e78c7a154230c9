"""Depth profiles show the record's numbers, at any scale, and say what the band is."""

import numpy as np
import pytest

from jaxinit import plot
from jaxinit.plot._series import series


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def legend_title(figure_or_axes):
    legends = getattr(figure_or_axes, "legends", None) or [figure_or_axes.get_legend()]
    return legends[0].get_title().get_text()


def test_the_line_is_the_typical_value_on_a_log_axis(propagation):
    ax = plot.depth_profile({"xavier": propagation(0.5, 30)})
    line = lines(ax)["xavier"]
    assert ax.get_yscale() == "log"
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 31))
    np.testing.assert_allclose(line.get_ydata(), 0.5 ** np.arange(30.0), rtol=1e-12)


@pytest.mark.parametrize(("band", "half"), [("range", 0.5), ("stderr", None), ("none", 0.0)])
def test_the_band_is_what_it_says(propagation, band, half):
    record = propagation(0.5, 10, seeds=8)
    line = series(record, "log_second_moment", "x", band=band)
    half = np.linspace(-0.5, 0.5, 8).std(ddof=1) / np.sqrt(8) if half is None else half
    np.testing.assert_allclose(line.high - line.centre, half / np.log(10), rtol=1e-9)
    np.testing.assert_allclose(line.centre - line.low, half / np.log(10), rtol=1e-9)
    ax = plot.depth_profile(record, band=band)
    words = {
        "range": "min to max over 8 seeds",
        "stderr": "mean ± 1 standard error over 8 seeds",
        "none": "over 8 seeds",
    }
    assert words[band] in legend_title(ax.figure)
    assert len(ax.collections) == (band != "none")


def test_one_layer_has_a_whole_number_and_a_bar_for_its_range(propagation):
    ax = plot.depth_profile(propagation(0.5, 1, seeds=8))
    low, high = ax.get_xlim()
    assert [x for x in ax.get_xticks() if low <= x <= high] == [1]
    (bar,) = (c.get_segments()[0][:, 1] for c in ax.collections)
    np.testing.assert_allclose(bar, np.exp([-0.5, 0.5]), rtol=1e-9)


def test_beyond_floats_the_axis_shows_exponents(propagation):
    ax = plot.depth_profile(propagation(0.5, 3000))
    assert ax.get_yscale() == "linear" and "log" in ax.get_ylabel()
    np.testing.assert_allclose(ax.lines[0].get_ydata()[-1], -2999 * np.log10(2), rtol=1e-9)
    assert plot.png(ax.figure).startswith(b"\x89PNG")


def test_zeros_are_marked_and_named_not_dropped(propagation):
    figure = plot.depth_profiles({"zeros": propagation(0.0), "he": propagation(1.0)})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["zeros (0 everywhere)", "he"]
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "v"]
    assert len(marks) == 1 and len(marks[0].get_xdata()) == 30
    plot.png(figure)


def test_a_line_that_dies_midway_says_where(propagation):
    record = propagation(0.5, 6)
    record.log_second_moment.mean[3:] = -np.inf
    record.log_grad_second_moment.mean[:2] = np.nan
    figure = plot.depth_profiles({"x": record})
    assert figure.legends[0].get_texts()[0].get_text() == "x (signal 0 from 4; gradient nan at 1 to 2)"


def test_a_flat_line_does_not_look_like_a_trend(propagation):
    low, high = plot.depth_profile(propagation(0.99, 30)).get_ylim()
    assert np.log10(high / low) >= 2


def test_theory_and_simulation_share_a_colour_and_differ_in_dash(propagation):
    ax = plot.depth_profile({"he": [propagation(1.0), propagation(1.0, seeds=0)], "xavier": propagation(0.5)})
    drawn = lines(ax)
    sim, theory, other = drawn["he, simulation"], drawn["he, theory"], drawn["xavier"]
    assert sim.get_color() == theory.get_color() != other.get_color()
    assert theory.get_linestyle() == "--" != sim.get_linestyle()
    assert len(ax.collections) == 2  # bands: the two simulations
    assert "dashed: theory" in legend_title(ax.figure)


def test_inputs_are_averaged_or_chosen(propagation):
    record = propagation(0.5, 5)
    record.correlation.mean[:] = 0.25
    record.log_second_moment.mean[:, 0] += 2.0
    both = series(record, "log_second_moment", "x").centre
    one = series(record, "log_second_moment", "x", chosen=1).centre
    np.testing.assert_allclose((both - one) * np.log(10), 1.0)
    with pytest.raises(ValueError, match=r"one of the 2 inputs, got 2"):
        plot.depth_profile(record, input=2)


def test_named_sites_are_written_without_what_they_share(propagation):
    sites = [f"params/Dense_{i}" for i in range(60)]
    ax = plot.depth_profile(propagation(1.0, 60, sites=sites))
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names[0] == "Dense_0" and len(names) <= 24 and len(set(names)) == len(names)


def test_the_callers_axes_are_used_and_not_restyled(propagation):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.set_facecolor("red")
    assert plot.depth_profile(propagation(), ax=ax) is ax
    assert ax.get_facecolor() == (1.0, 0.0, 0.0, 1.0)
    assert "8 seeds" in legend_title(ax)


def test_statistics_that_are_missing_leave_no_panel(propagation):
    assert len(plot.figure(propagation(inputs=1)).axes) == 3
    assert len(plot.figure(propagation(inputs=2)).axes) == 4
    with pytest.raises(ValueError, match=r"recorded in at least one"):
        plot.depth_profile(propagation(), "kurtosis")


def test_means_stand_in_for_logarithms(propagation):
    import dataclasses

    record = dataclasses.replace(propagation(0.5, 10), log_second_moment=None)
    line = plot.depth_profile(record).lines[0]
    np.testing.assert_allclose(line.get_ydata(), record.second_moment.mean[:, 0], rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"statistic": "second_momnt"}, ValueError, "Did you mean 'second_moment'"),
        ({"band": "sd"}, ValueError, "'range', 'stderr' or 'none'"),
        ({"theme": "pink"}, ValueError, "'light' or 'dark'"),
    ],
)
def test_bad_arguments(propagation, arguments, error, words):
    with pytest.raises(error, match=words):
        plot.depth_profile(propagation(), **arguments)


def test_what_is_no_record_is_refused():
    for nothing in (3, "he", {"he": 3}):
        with pytest.raises(TypeError, match=r"Propagation"):
            plot.depth_profile(nothing)
        with pytest.raises(TypeError, match=r"record"):
            plot.figure(nothing)
        for draw, kind in ((plot.spectrum, "Spectrum"), (plot.phase_diagram, "PhaseDiagram")):
            with pytest.raises(TypeError, match=rf"record=...\)` must be a {kind}"):
                draw(nothing)
        with pytest.raises(TypeError, match=r"svg\(figure="):
            plot.svg(nothing)
    with pytest.raises(ValueError, match=r"at least one"):
        plot.depth_profile({})
