"""Training figures show medians over seeds, count what diverged, and mark what validation chose."""

import dataclasses

import numpy as np
import pytest

from jaxinit import plot


def legend_texts(ax):
    return [text.get_text() for text in ax.figure.legends[0].get_texts()]


def test_the_line_is_the_median_and_the_band_the_range(convergence):
    record = convergence(seeds=3, steps=60)
    ax = plot.curves(record, "train_loss", at=0.1)
    runs = record.train_loss[1, 1]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), np.median(runs, axis=0), rtol=1e-6)
    edges = ax.collections[1].get_paths()[0].vertices
    at_30 = edges[np.isclose(edges[:, 0], 30.0), 1]
    np.testing.assert_allclose([at_30.min(), at_30.max()], [runs[:, 30].min(), runs[:, 30].max()], rtol=1e-6)
    assert "min to max over 3 seeds" in ax.figure.legends[0].get_title().get_text()


def test_long_runs_are_shown_as_means_over_windows(convergence):
    record = convergence(steps=250)
    ax = plot.curves(record, at=0.1, band="none")
    drawn = ax.lines[1].get_ydata()
    assert len(drawn) == 84 and "means over 3" in ax.get_xlabel()
    expected = np.median(
        [run[:249].reshape(-1, 3).mean(1) for run in record.train_loss[1, 1].astype(float)], axis=0
    )
    np.testing.assert_allclose(drawn[:83], expected, rtol=1e-6)


def test_diverged_runs_are_counted_and_leave(convergence):
    record = convergence(diverge=(1, 1, 0))
    ax = plot.curves(record, "validation_accuracy", at=0.1)
    assert "1 of 3 runs diverged" in legend_texts(ax)[1]
    left = np.median(record.validation_accuracy[1, 1, 1:, -1])
    np.testing.assert_allclose(ax.lines[1].get_ydata()[-1], left, rtol=1e-6)
    everything = plot.learning_rate_sensitivity(record)
    assert "1 of 6 runs diverged" in legend_texts(everything)[1]


def test_runs_stopped_at_their_goal_keep_their_last_value(convergence):
    record = convergence(seeds=3, steps=60)
    record.stopped_at[1, 1, :] = 30
    record.train_loss[1, 1, :, 30:] = np.nan
    drawn = plot.curves(record, at=0.1).lines[1].get_ydata()
    np.testing.assert_allclose(drawn[30:], drawn[29])


def test_sensitivity_shows_all_rates_and_rings_the_chosen(convergence):
    record = convergence(rates=(0.1, 0.001, 0.01), steps=30)
    ax = plot.learning_rate_sensitivity(record)
    line, ring = ax.lines[2], ax.lines[3]
    np.testing.assert_allclose(line.get_xdata(), [0.001, 0.01, 0.1])
    np.testing.assert_allclose(
        line.get_ydata(), np.median(record.test_accuracy[1], axis=-1)[[1, 2, 0]], rtol=1e-6
    )
    assert ring.get_xdata()[0] == record.learning_rates[record.best_rate()[1]] == 0.1


@pytest.mark.parametrize("accuracy", [True, False])
def test_the_figure_of_a_record(convergence, accuracy):
    figure = convergence(accuracy=accuracy).plot()
    names = [ax.get_ylabel() for ax in figure.axes]
    measure = "accuracy" if accuracy else "loss"
    assert names == ["training loss (batch)", f"validation {measure}", f"test {measure} after 60 steps"]
    assert len(convergence(rates=(0.1,)).plot().axes) == 2
    assert plot.png(figure).startswith(b"\x89PNG")


def test_everything_diverged_still_draws(convergence):
    record = convergence(seeds=2)
    record.train_loss[:] = np.nan
    record.validation_loss[:] = np.nan
    record.validation_accuracy[:] = np.nan
    record.diverged_at[:] = 0
    plot.png(record.plot())


def test_zero_losses_do_not_break_the_log_axis(convergence):
    record = convergence()
    record = dataclasses.replace(record, train_loss=np.zeros_like(record.train_loss))
    assert plot.curves(record).get_yscale() == "linear"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda r, p: plot.curves(p), TypeError, "Convergence record"),
        (lambda r, p: plot.curves(r, "train_los"), ValueError, "Did you mean 'train_loss'"),
        (lambda r, p: plot.curves(r, band="stderr"), ValueError, "'range', 'quartiles' or 'none'"),
        (lambda r, p: plot.curves(r, at=0.5), ValueError, r"a rate of \[0.01, 0.1\]"),
        (lambda r, p: plot.training(r, at="bst"), ValueError, "'best' or 'common'"),
    ],
)
def test_bad_arguments(convergence, propagation, call, error, words):
    with pytest.raises(error, match=words):
        call(convergence(), propagation())


def test_a_task_without_accuracy_says_so(convergence):
    with pytest.raises(ValueError, match=r"no accuracy"):
        plot.curves(convergence(accuracy=False), "validation_accuracy")
