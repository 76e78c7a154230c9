"""The rate per layer and its uncertainty are those of the samples."""

import dataclasses
import math

import numpy as np
import pytest

from jaxinit.diagnose import propagation_verdict, rate
from jaxinit.records import Propagation, Statistic


def record(samples, keep=True, backward=None):
    """A record from samples (seeds, sites) of the log second moment."""
    sites = tuple(str(l) for l in range(1, samples.shape[1] + 1))
    back = None if backward is None else Statistic.of(backward[..., None], keep=keep)
    return Propagation(
        "simulation",
        sites,
        1,
        log_second_moment=Statistic.of(samples[..., None], keep=keep),
        log_grad_second_moment=back,
    )


def test_the_rate_of_an_exact_law(synthetic):
    found = rate(synthetic.propagation(0.5, 30, seeds=0))
    assert found.factor == pytest.approx(0.5, rel=1e-12) and found.stderr == 0 and found.count == 0
    assert found.decades == pytest.approx(-29 * math.log10(2))


def test_the_standard_error_covers_the_truth():
    """Random walks with drift: the error of the fitted rate, in its standard errors, is standard normal."""
    rng, drift = np.random.default_rng(0), math.log(0.5)
    scores = []
    for _ in range(300):
        walks = np.cumsum(drift + 0.2 * rng.standard_normal((24, 20)), axis=1)
        found = rate(record(walks))
        scores.append((math.log(found.factor) - drift) / (found.stderr / found.factor))
    # Student t with 23 degrees of freedom: variance 23/21, its sample variance within 5 standard errors.
    assert abs(np.mean(scores)) < 5 / math.sqrt(300)
    assert abs(np.var(scores) - 23 / 21) < 5 * math.sqrt(2.5 / 300)


def test_without_samples_the_standard_error_is_an_upper_bound():
    walks = np.cumsum(np.random.default_rng(1).standard_normal((50, 20)), axis=1)
    kept, lost = rate(record(walks)), rate(record(walks, keep=False))
    assert kept.factor == pytest.approx(lost.factor)
    assert kept.stderr < lost.stderr


def test_dead_and_missing_signals(synthetic):
    dead = rate(synthetic.propagation(0.0))
    assert math.isnan(dead.factor) and dead.last == -math.inf and dead.dies_at == "1"
    assert rate(dataclasses.replace(synthetic.propagation(), log_second_moment=None)) is None


@pytest.mark.parametrize(
    ("forward", "backward", "word"),
    [
        (0.5, 0.5, "vanishing"),
        (1.0, 1.0, "alive"),
        (2.0, 2.0, "exploding"),
        (1.0, 0.5, "vanishing"),
        (1.0, 2.0, "exploding"),
        (0.0, 0.0, "dead"),
    ],
)
def test_the_word_follows_signal_and_gradient(forward, backward, word):
    layers = np.arange(21.0)

    def walk(factor):
        log = np.where(layers == 0, 0.0, layers * math.log(factor)) if factor else np.full(21, -np.inf)
        return np.stack([log] * 4)

    verdict = propagation_verdict("x", record(walk(forward), backward=walk(backward)[:, ::-1]))
    assert verdict.word == word
