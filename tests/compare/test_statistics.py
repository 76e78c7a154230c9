"""The statistics of training comparisons, on runs whose outcome is written down by hand."""

import dataclasses
import io

import numpy as np
import pytest
import rich.console
import scipy.stats

from jaxinit.records import Convergence, load
from jaxinit.records._resampling import interval, resamples, superiority

EVALUATED = np.array([0, 10, 20, 30])


def study(accuracy, loss=None, *, diverged=None, names=None, rates=None, regression=False, **config):
    """A Convergence of validation curves `(I, R, S, E)`; test figures are the last ones, plus nothing."""
    accuracy = np.asarray(accuracy, np.float32)
    loss = 1.0 - accuracy if loss is None else np.asarray(loss, np.float32)
    runs = accuracy.shape[:3]
    diverged = np.full(runs, -1) if diverged is None else np.asarray(diverged)
    gone = (diverged[..., None] >= 0) & (diverged[..., None] < EVALUATED)
    accuracy, loss = np.where(gone, np.nan, accuracy), np.where(gone, np.nan, loss)
    last_accuracy = np.where(diverged >= 0, np.nan, accuracy[..., -1])
    last_loss = np.where(diverged >= 0, np.nan, loss[..., -1])
    return Convergence(
        initializers=tuple(names or "abcdef"[: runs[0]]),
        learning_rates=np.asarray(rates or [0.01 * 10**r for r in range(runs[1])]),
        seeds=np.arange(runs[2], dtype=np.uint32),
        evaluated_at=EVALUATED,
        train_loss=np.repeat(loss[..., 1:], 10, axis=-1),
        validation_loss=loss,
        validation_accuracy=None if regression else accuracy,
        test_loss=last_loss,
        test_accuracy=None if regression else last_accuracy,
        diverged_at=diverged,
        stopped_at=np.full(runs, -1),
        config={"chance": 0.1, "test_size": 400, **config},
    )


def rising(*levels):
    """One initializer and rate: seeds that rise from 0.1 to the given levels."""
    return [[[0.1, 0.1 + (level - 0.1) / 2, level, level] for level in levels]]


@pytest.fixture
def two():
    """`a` learns at both rates, better at the second; `b` learns at the first rate in one seed of three."""
    a = [[[0.1, 0.4, 0.6, 0.70], [0.1, 0.4, 0.6, 0.72], [0.1, 0.4, 0.6, 0.74]],
         [[0.1, 0.6, 0.8, 0.90], [0.1, 0.6, 0.8, 0.92], [0.1, 0.3, 0.8, 0.94]]]  # fmt: skip
    b = [[[0.1, 0.2, 0.3, 0.85], [0.1, 0.1, 0.1, 0.10], [0.1, 0.1, 0.1, 0.10]],
         [[0.1, 0.1, 0.1, 0.10], [0.1, 0.1, 0.1, 0.10], [0.1, 0.1, 0.1, 0.10]]]  # fmt: skip
    return study([a, b])


def test_best_rate_is_chosen_by_median_validation_accuracy(two):
    # b: medians are 0.1 at both rates, so the lower median loss decides, then the smaller rate
    assert two.best_rate().tolist() == [1, 0]
    assert two.at_edge().tolist() == [1, -1]
    assert two.common_rate() == 1
    assert two.rates("common").tolist() == [1, 1]
    assert two.rates(0.01).tolist() == [0, 0]
    with pytest.raises(ValueError, match="must be a rate of"):
        two.rates(0.02)
    with pytest.raises(ValueError, match="'best' or 'common'"):
        two.rates("worst")


def test_test_figures_do_not_choose(two):
    """The choice looks at validation data alone: swapping test figures changes nothing."""
    swapped = dataclasses.replace(two, test_accuracy=two.test_accuracy[:, ::-1])
    assert swapped.best_rate().tolist() == two.best_rate().tolist()
    assert swapped.summary()["a"].value == pytest.approx(0.72)


def test_diverged_runs_count_as_worst():
    record = study([rising(0.9, 0.9, 0.9), rising(0.9, 0.9, 0.9)], diverged=[[[-1, 12, 13]], [[-1, -1, 12]]])
    assert record.final("test_accuracy")[0, 0].tolist() == [pytest.approx(0.9), 0.0, 0.0]
    assert record.final("validation_loss")[0, 0].tolist() == [pytest.approx(0.1), np.inf, np.inf]
    assert record.summary()["a"].value == 0.0 and record.summary()["b"].value == pytest.approx(0.9)
    assert record.divergence_rate().tolist() == [[2 / 3], [1 / 3]]
    # a run that passed the threshold before it broke has not trained
    assert np.isinf(record.crossing_steps(0.3, "validation_accuracy")[0, 0]).tolist() == [False, True, True]


def test_steps_to_a_threshold_are_censored(two):
    crossings = two.steps_to(0.79)
    assert crossings["a"].steps.tolist() == [20, 20, 20] and crossings["a"].reached == 3
    assert crossings["b"].steps.tolist() == [30, np.inf, np.inf] and crossings["b"].reached == 1
    assert crossings["b"].median.value == np.inf and crossings["b"].median.low == 30
    assert two.steps_to(0.5)["a"].steps.tolist() == [10, 10, 20]
    by_loss = two.steps_to(0.5, "validation_loss")["a"]
    assert by_loss.steps.tolist() == [10, 10, 20]
    assert two.steps_to(0.45, "train_loss")["a"].steps.tolist() == [0, 0, 10]
    with pytest.raises(ValueError, match="metric"):
        two.steps_to(0.5, "test_loss")


def test_default_threshold_is_nine_tenths_of_the_way(two):
    assert two.threshold() == pytest.approx(0.1 + 0.9 * (0.92 - 0.1))
    assert next(iter(two.steps_to().values())).threshold == two.threshold()


def test_area_is_the_mean_of_the_curve():
    record = study([rising(0.9)], diverged=[[[-1]]])
    assert record.areas("validation_accuracy")[0, 0, 0] == pytest.approx((0.3 + 0.7 + 0.9) / 3)
    broken = study([rising(0.9)], diverged=[[[15]]])
    assert broken.areas("validation_accuracy")[0, 0, 0] == pytest.approx((0.3 + 0.25 + 0.0) / 3)
    assert broken.areas("validation_loss")[0, 0, 0] == np.inf
    assert record.area()["a"].value == pytest.approx(1.9 / 3)


def test_after_an_early_stop_the_curve_stays():
    record = study([rising(0.9)])
    curve = record.validation_accuracy.copy()
    curve[..., 3] = np.nan
    stopped = dataclasses.replace(record, validation_accuracy=curve, stopped_at=np.full((1, 1, 1), 20))
    assert stopped.areas("validation_accuracy")[0, 0, 0] == pytest.approx(1.9 / 3)
    assert stopped.final("validation_accuracy")[0, 0, 0] == pytest.approx(0.9)


def test_superiority_is_mann_whitney_u():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 8, 13).astype(float), rng.integers(2, 9, 13).astype(float)
    u = scipy.stats.mannwhitneyu(a, b).statistic
    assert superiority(a, b) == pytest.approx(u / (13 * 13))
    assert superiority(b, a) == pytest.approx(1 - u / (13 * 13))


def test_probability_better_over_all_pairs(two):
    value, low, high = two.probability_better()
    assert value[0, 1] == 1.0 and value[1, 0] == 0.0
    assert np.diag(value).tolist() == [0.5, 0.5]
    assert (low <= value).all() and (value <= high).all()
    by_loss, _, _ = two.probability_better("test_loss")
    assert by_loss[0, 1] == 1.0
    # at the rate 0.01, b's one good seed beats all of a's
    assert two.probability_better(at=0.01)[0][1, 0] == pytest.approx(1 / 3)


def test_intervals_cover_as_often_as_they_say():
    """With 25 seeds the interval of the median covers the truth in 95 % of studies, within 5 standard errors.

    The percentile bootstrap of a median is slightly conservative; its published deviation at this size is
    below 2 %, which is the stated bias. A wrong interval (of the half level) must fail the same test.
    """
    trials, n = 400, 25
    rng = np.random.default_rng(1)
    data = rng.exponential(size=(trials, n))
    draws = resamples(n, 1000)
    truth = np.log(2.0)

    def covered(level):
        inside = 0
        for row in data:
            low, high = interval(np.median(row[draws], axis=1), level)
            inside += low <= truth <= high
        return inside / trials

    error = np.sqrt(0.95 * 0.05 / trials)
    assert abs(covered(0.95) - 0.95) <= 5 * error + 0.02
    assert abs(covered(0.6) - 0.95) > 5 * error + 0.02


def test_intervals_carry_the_luck_of_the_choice():
    """Two rates that are alike up to noise: the interval at best is that of both, not of the lucky one."""
    rng = np.random.default_rng(3)
    levels = rng.normal(0.8, 0.02, size=(1, 2, 9))
    curves = np.stack([np.full_like(levels, 0.1), levels, levels, levels], axis=-1)
    record = study(curves)
    chosen = record._replicates(record.final("test_accuracy"), "best")
    fixed = record._replicates(
        record.final("test_accuracy"), float(record.learning_rates[record.best_rate()[0]])
    )
    assert not np.array_equal(chosen, fixed)
    assert record.summary() == record.summary()


def test_record_survives_the_disk(two, tmp_path):
    again = load(two.save(tmp_path / "run.npz"))
    assert again.initializers == two.initializers and again.config == two.config
    np.testing.assert_array_equal(again.validation_accuracy, two.validation_accuracy)
    assert again.verdicts() == two.verdicts()
    assert "2 initializers x 2 learning rates x 3 seeds, 30 steps" in repr(again)


def test_rows_and_table(two):
    rows = two.rows()
    assert len(rows) == 12
    first = {"initializer": "a", "learning_rate": 0.01, "seed": 0, "diverged_at": -1}
    assert first.items() <= rows[0].items() and rows[0]["test_accuracy"] == pytest.approx(0.7)
    console = rich.console.Console(file=io.StringIO(), width=160)
    console.print(two)
    text = console.file.getvalue()
    assert "0.920 [0.900, 0.940]" in text and "never" in text and "(1/3)" in text


def test_a_metric_that_is_not_there(two):
    with pytest.raises(KeyError, match="test_accuracy"):
        two["test_acuracy"]


def test_verdict_of_what_trains(two):
    text = two.verdicts()["a"]
    assert text.startswith("Trains: test accuracy 0.920 [0.900, 0.940] at learning rate 0.1")
    assert "largest tried" in text and "worse" not in text


def test_verdict_of_what_trains_sometimes(two):
    text = two.verdicts()["b"]
    assert text.startswith("Beats the trivial answer in 1 of 3 seeds only") and "worse than a" in text


def test_verdict_of_what_does_not_learn():
    record = study([rising(0.9, 0.9, 0.9), rising(0.1, 0.11, 0.1)])
    text = record.verdicts()["b"]
    assert text.startswith("Does not learn in 30 steps at learning rate 0.01, in any of 3 seeds")
    assert "most frequent class (0.1)" in text


def test_verdict_knows_the_noise_of_a_small_test_set():
    """0.13 on 400 examples is within three standard errors of chance 0.1; on 40,000 it is not."""
    assert study([rising(0.13, 0.13, 0.13)]).verdicts()["a"].startswith("Does not learn")
    assert study([rising(0.13, 0.13, 0.13)], test_size=40000).verdicts()["a"].startswith("Trains")


def test_verdict_of_what_lags():
    text = study([rising(0.9, 0.9, 0.9), rising(0.4, 0.5, 0.4)]).verdicts()["b"]
    assert text.startswith("Learns, but in most runs falls short of the best: test accuracy 0.400")


def test_verdict_of_divergence():
    record = study([rising(0.9, 0.9, 0.9), rising(0.9, 0.9, 0.9)], diverged=[[[-1, -1, 3]], [[3, 4, 5]]])
    assert record.verdicts()["b"].startswith("Diverges in every run: 3 seeds, learning rate 0.01")
    assert "33 % of its runs diverge" in record.verdicts()["a"]


def test_verdict_does_not_separate_what_overlaps():
    levels = np.linspace(0.8, 0.9, 6)
    record = study([rising(*levels), rising(*(levels + 0.004))])
    value, low, high = record.probability_better()
    assert (low <= value).all() and (value <= high).all()
    assert "Not separated from b" in record.verdicts()["a"]
    clear = study([rising(*levels), rising(*(levels - 0.3))])
    assert "worse than a in every pair of runs" in clear.verdicts()["b"]
    nearly = study([rising(*levels), rising(*(levels - 0.08))])
    assert "worse than a more often than not" in nearly.verdicts()["b"]


def test_verdict_of_a_regression():
    loss = np.array([[[[1.0, 0.5, 0.2, 0.1]] * 3], [[[1.0, 1.0, 1.0, 0.99]] * 3]])
    record = study(1 - loss, loss, regression=True, baseline_loss=1.0)
    assert record.measure == "loss"
    assert record.verdicts()["a"].startswith("Trains: test loss 0.100")
    assert "the trivial answer (loss 1)" in record.verdicts()["b"]
    assert record.threshold() == pytest.approx(0.19)
    assert record.common_rate() == 0


@pytest.fixture
def watched(two):
    """Three layers: in `a` the signal grows by 4 and the gradient stays; in `b` nothing arrives at all."""
    shape = (2, 2, 3, 4, 3)
    second, gradient, silent = np.zeros(shape), np.zeros(shape), np.ones(shape)
    second[0] = [1.0, 2.0, 4.0]
    gradient[0] = [0.1, 0.2, 0.2]
    silent[0] = [0.25, 0.75, 1.0]
    silent[0, :, :, 2:] = 1.0
    signals = {"second_moment": second, "grad_rms": gradient, "silent_fraction": silent}
    return dataclasses.replace(two, signals=signals, sites=("l1", "l2", "l3"))


def test_signals_before_training_stand_beside_the_outcome(watched, two):
    start = watched.before_training()
    assert start["a"] == {"signal": 4.0, "gradient": 0.5, "silent": 0.5}
    assert np.isnan(start["b"]["signal"]) and start["b"]["silent"] == 1.0
    assert two.before_training() == {}
    console = rich.console.Console(file=io.StringIO(), width=250)
    console.print(watched)
    text = console.file.getvalue()
    assert "before training" in text and "50 %" in text and "none" in text
    assert "Before training" not in watched.verdicts()["a"]
    faded = {"second_moment": watched.signals["second_moment"] * [1.0, 1.0, 1e-9]}
    record = dataclasses.replace(watched, signals=watched.signals | faded)
    expected = "Before training, its signal (mean square) changes by a factor 4e-09 from the first layer to the last."
    assert expected in record.verdicts()["a"] and "Before" not in record.verdicts()["b"]


def test_signals_are_drawn_over_steps_and_layers(watched):
    from jaxinit.plot import training_signals

    figure = training_signals(watched)
    first, second, bar = figure.axes
    assert [ax.get_title().split(" (")[0] for ax in (first, second)] == ["a", "b"]
    drawn = first.collections[0].get_array()
    np.testing.assert_array_equal(drawn, watched.signals["silent_fraction"][0, 1, 0].T)
    assert bar.get_ylabel().startswith("share of silent units")
    moments = training_signals(watched, "second_moment").axes[1].collections[0].get_array()
    assert moments.mask.all(), "a logarithm has no colour for 0"
    with pytest.raises(ValueError, match="Did you mean 'silent_fraction'"):
        training_signals(watched, "silent_fractions")
    with pytest.raises(ValueError, match="signals=True"):
        training_signals(dataclasses.replace(watched, signals={}))
