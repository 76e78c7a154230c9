"""Tails, quantiles and intervals, against SciPy; the change over a walk, against its law."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxinit.diagnose._certainty import Figure, quantile, tail
from jaxinit.diagnose._profile import Profile, change, is_exponential


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 7, 16, 63, 400])
def test_student_tails(dof):
    for t in (-2.5, 0.0, 0.3, 1.0, 3.0, 12.0):
        assert tail(t, dof) == pytest.approx(stats.t.sf(t, dof), abs=1e-14)
    for p in (0.4, 0.025, 1e-3, 1e-6):
        assert quantile(p, dof) == pytest.approx(stats.t.isf(p, dof), rel=1e-6)


def test_many_degrees_of_freedom_are_normal():
    for t in (0.5, 3.0, 8.0):
        assert tail(t, math.inf) == pytest.approx(stats.norm.sf(t), rel=1e-12)
    assert tail(3.0, 1000) == pytest.approx(stats.t.sf(3.0, 1000), rel=0.03)


def test_exact_figures_are_on_one_side():
    assert Figure(2.0).p_above(1.0) == 0.0 and Figure(2.0).p_above(2.0) == 1.0
    assert Figure(-2.0).p_beyond(1.0) == 0.0 and Figure(-2.0).interval() == (-2.0, -2.0)
    assert Figure(math.nan, 1.0).p_above(0.0) == 1.0


def walks(drift, variance, seeds, steps, rng, keep=True):
    """A profile of log-normal walks: log ratios of mean drift - variance / 2 a step."""
    own = np.cumsum(rng.normal(drift - variance / 2, math.sqrt(variance), (seeds, steps)), axis=1)
    own = np.concatenate([np.zeros((seeds, 1)), own], axis=1)
    sites = tuple(map(str, range(1, steps + 2)))
    error = own.std(axis=0, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.full(steps + 1, np.nan)
    x = np.arange(1.0, steps + 2)
    return Profile(sites, x, own.mean(axis=0), error, seeds, own if keep and seeds > 1 else None)


@pytest.mark.parametrize(("seeds", "keep"), [(16, True), (16, False), (5, False), (1, False)])
def test_the_annealed_change_has_no_drift_of_width(seeds, keep):
    """Martingales (mean ratio 1) whose typical change is far from 0: the annealed one is within its interval of 0.

    Coverage of the 99 % interval in 400 records; the lower bound leaves five standard errors of a coverage of 97 %
    (the variance is estimated, so that Student's law is approximate).
    """
    rng = np.random.default_rng(seeds + keep)
    hits, typical = 0, []
    for _ in range(400):
        moved = change(walks(0.0, 0.05, seeds, 60, rng, keep))
        low, high = moved.annealed.interval(0.99)
        hits += low <= 0.0 <= high
        typical.append(moved.typical.value)
    assert hits >= 400 * 0.97 - 5 * math.sqrt(400 * 0.97 * 0.03)
    assert np.mean(typical) == pytest.approx(-1.5, abs=5 * math.sqrt(3.0 / seeds / 400))


def test_a_drift_of_scale_is_not_taken_for_width():
    rng = np.random.default_rng(5)
    for seeds in (1, 4, 16):
        moved = change(walks(math.log(0.5), 0.05, seeds, 60, rng))
        low, high = moved.annealed.interval(0.99999)
        assert low <= 60 * math.log(0.5) <= high < -10


def test_powers_of_depth_are_told_from_factors_a_layer():
    rng, x = np.random.default_rng(6), np.arange(1.0, 41.0)
    noise = 0.05 * rng.standard_normal((200, 40)).cumsum(axis=1)
    factor, power = 0.3 * x + noise, -2.0 * np.log(x) + noise
    assert all(is_exponential(x, y) for y in factor)
    assert not any(is_exponential(x, y) for y in power)
