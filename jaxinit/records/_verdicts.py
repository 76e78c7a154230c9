"""What a training comparison allows one to say of each initializer, and no more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from jaxinit.records._convergence_table import format_crossing, format_estimate

if TYPE_CHECKING:
    from jaxinit.records._convergence import Convergence

#: A regression counts as learned when it removes at least this share of the loss of the trivial answer.
_LEAST_GAIN = 0.05
#: A signal or gradient that changes by more than this over the depth is worth a word.
_FADED = 1e-3


def trivial_level(record: Convergence) -> float:
    """What a test figure must beat to count as learned.

    Accuracy: that of the most frequent class plus three standard errors of the test set's size. Loss: 95 % of
    the loss of the trivial answer.
    """
    if record.measure == "accuracy":
        chance = float(record.config.get("chance", 0.0))
        return chance + 3.0 * math.sqrt(
            chance * (1.0 - chance) / max(int(record.config.get("test_size", 1)), 1)
        )
    start = record.config.get("baseline_loss") or float(np.nanmedian(record.validation_loss[..., 0]))
    return (1.0 - _LEAST_GAIN) * float(start)


def convergence_verdicts(record: Convergence) -> dict[str, str]:
    """One sentence or two an initializer."""
    outcome = _learned(record)
    finals = record.summary(f"test_{record.measure}")
    sign = 1.0 if record.measure == "accuracy" else -1.0
    leader = max(record.initializers, key=lambda name: sign * finals[name].value)
    return {name: _verdict(record, i, name, outcome[i], leader) for i, name in enumerate(record.initializers)}


def _learned(record: Convergence) -> np.ndarray:
    """Share of the seeds that beat the trivial answer, at each learning rate: `(I, R)`."""
    final, level = record.final(f"test_{record.measure}"), trivial_level(record)
    return (final > level if record.measure == "accuracy" else final < level).mean(axis=-1)


def _verdict(record: Convergence, i: int, name: str, learned: np.ndarray, leader: str) -> str:
    rates, best = record.learning_rates, record.best_rate()[i]
    seeds = f"{len(record.seeds)} seed{'s' if len(record.seeds) > 1 else ''}"
    tried = _tried(rates)
    figure = format_estimate(record.summary()[name])
    measure = f"test {record.measure} {figure}"
    if record.diverged()[i].all():
        return " ".join([f"Diverges in every run: {seeds}, {tried}.", *_start(record, name)])
    if not learned.any():
        where = f"in {record.steps} steps at {tried}, in any of {seeds}"
        sentence = f"Does not learn {where}: {measure}, no better than {_trivial(record)}."
        return " ".join([sentence, *_start(record, name)])
    crossing, share = record.steps_to()[name], learned[best]
    where = f"{measure} at learning rate {rates[best]:.3g}"
    if share == 0.0:
        sentence = f"Does not learn at the rate chosen on validation data: {where}"
    elif share < 1.0:
        count = round(share * len(record.seeds))
        sentence = f"Beats the trivial answer in {count} of {seeds} only: {where}"
    elif 2 * crossing.reached > len(crossing.steps):
        sentence = f"Trains: {where}"
    else:
        sentence = f"Learns, but in most runs falls short of the best: {where}"
    sign = "≥" if record.measure == "accuracy" else "≤"
    level = f"{record.measure} {sign} {crossing.threshold:.3g}"
    sentence += f"; steps to validation {level}: {format_crossing(crossing)}."
    return " ".join([sentence, *_start(record, name), *_remarks(record, i, name, leader)])


def _tried(rates: np.ndarray) -> str:
    if len(rates) == 1:
        return f"learning rate {rates[0]:.3g}"
    return f"{len(rates)} learning rates from {rates.min():.3g} to {rates.max():.3g}"


def _trivial(record: Convergence) -> str:
    if record.measure == "accuracy":
        return f"always answering the most frequent class ({float(record.config.get('chance', 0.0)):.3g})"
    return f"the trivial answer (loss {trivial_level(record) / (1.0 - _LEAST_GAIN):.3g})"


def _start(record: Convergence, name: str) -> list[str]:
    """What was seen of the signal before training, where it explains something."""
    figures = record.before_training().get(name, {})
    out = []
    for key, text in (
        ("signal", "its signal (mean square) changes by a factor {:.1g} from the first layer to the last"),
        ("gradient", "the gradient of its first layer is {:.1g} of that of its last"),
    ):
        value = figures.get(key, 1.0)
        if value < _FADED or value > 1.0 / _FADED:
            out.append(text.format(value))
    return [f"Before training, {' and '.join(out)}."] if out else []


def _remarks(record: Convergence, i: int, name: str, leader: str) -> list[str]:
    remarks = []
    if name != leader:
        value, low, high = (m[i, record.initializers.index(leader)] for m in record.probability_better())
        chance = f"P(a run of it ends better) = {value:.2g} [{low:.2g}, {high:.2g}]"
        if value == 0.0:
            remarks.append(f"Ends worse than {leader} in every pair of runs.")
        elif high < 0.5:
            remarks.append(f"Ends worse than {leader} more often than not: {chance}.")
        else:
            remarks.append(f"Not separated from {leader}: {chance}.")
    lost = record.divergence_rate()[i, record.best_rate()[i]]
    if lost > 0:
        remarks.append(f"{100 * lost:.0f} % of its runs diverge at that rate.")
    edge = record.at_edge()[i]
    if edge:
        extreme = "largest" if edge > 0 else "smallest"
        remarks.append(f"Its best rate is the {extreme} tried, so a wider range may serve it better.")
    if len(record.seeds) < 5:
        count = "One seed says" if len(record.seeds) == 1 else f"{len(record.seeds)} seeds say"
        remarks.append(f"{count} little about others.")
    return remarks
