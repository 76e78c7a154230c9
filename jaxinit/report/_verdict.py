"""One sentence a network: what became of its signal, its gradient, its training. Numbers, then one word."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxinit.records import Convergence, Propagation
from jaxinit.records._tables import format_log
from jaxinit.report._rate import DECADES, Rate, rate
from jaxinit.report._tables import seeds_note

#: What the words mean; printed under every list of verdicts.
RULE = (
    f"Alive: neither the typical signal nor the gradient changes by more than 10^{DECADES:g} between the "
    "first and the last layer. Vanishing, exploding: one of them does. Dead: one of them is exactly 0. "
    "Typical: exp of the mean log over seeds. ±: one standard error. The factor a layer: a least-squares fit of "
    "the mean log against depth."
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A label, a sentence, and one word for it.

    The word is one of `RULE` ("alive", "vanishing", "exploding", "dead"), "not finite", or empty where the
    numbers stand alone.
    """

    label: str
    word: str
    text: str


def _value(log_value: float, stderr: float) -> str:
    """exp(log_value) with the relative standard error in per cent."""
    text = format_log(log_value)
    if not math.isfinite(log_value) or not math.isfinite(stderr) or stderr == 0.0:
        return text
    return f"{text} ± {100 * stderr:.2g} %"


def with_error(value: float, error: float) -> str:
    """A figure to the digits that its error leaves it: `0.487 ± 0.008`."""
    if not 0 < error < math.inf:
        return f"{value:.4g}"
    places = -math.floor(math.log10(error))
    if not 0 <= places <= 6:
        return f"{value:.4g} ± {error:.1g}"
    return f"{value:.{places}f} ± {error:.{places}f}"


def _factor(r: Rate) -> str:
    if not math.isfinite(r.factor):
        return ""
    return f"×{with_error(r.factor, r.stderr)} a layer"


def _signal(record: Propagation, r: Rate) -> str:
    first, last = record.sites[0], record.sites[-1]
    if r.last == -math.inf and r.dies_at is not None:
        where = "everywhere" if r.dies_at == first else f"from layer {r.dies_at} on"
        return f"the signal is exactly 0 {where}"
    if not math.isfinite(r.last):
        return f"the signal at layer {last} is not finite"
    n = f" ({seeds_note({r.count})})"
    change = _factor(r)
    return (
        f"the typical signal ⟨z²⟩ goes from {format_log(r.first)} at layer {first} to "
        f"{_value(r.last, r.last_stderr)} at layer {last}" + (f", {change}" if change else "") + n
    )


def _gradient(record: Propagation, r: Rate) -> str:
    first, last = record.sites[0], record.sites[-1]
    if r.first == -math.inf:
        return f"no gradient reaches layer {first}: it is exactly 0 there"
    if not math.isfinite(r.first) or not math.isfinite(r.last):
        return f"the gradient is not finite between layers {first} and {last}"
    ratio = format_log(r.first - r.last)
    return f"the gradient's second moment at layer {first} is {ratio} times that at layer {last}"


def word(rates: list[Rate]) -> str:
    """The one word for the rates of a signal and its gradient; see `RULE`."""
    decades = [r.decades for r in rates]
    if any(r.last == -math.inf or r.first == -math.inf for r in rates):
        return "dead"
    if any(not math.isfinite(d) for d in decades):
        return "not finite"
    # A gradient is read from the last layer to the first: falling signal and rising gradient both vanish.
    changes = [decades[0], *(-d for d in decades[1:])]
    if min(changes) < -DECADES:
        return "vanishing"
    return "exploding" if max(changes) > DECADES else "alive"


def propagation_verdict(label: str, record: Propagation) -> Verdict:
    """The verdict on one Propagation."""
    forward, backward = rate(record), rate(record, "log_grad_second_moment")
    parts, rates = [], []
    if forward is not None:
        parts.append(_signal(record, forward))
        rates.append(forward)
    if backward is not None:
        parts.append(_gradient(record, backward))
        rates.append(backward)
    if forward is None or len(record.sites) < 2:
        return Verdict(label, "", "; ".join(parts) or "no second moments were recorded")
    return Verdict(label, word(rates), "; ".join(parts))


def verdicts(records: Mapping[str, Any]) -> list[Verdict]:
    """One verdict a network, in the order of the records.

    Where an initializer of a training comparison bears the label of a Propagation, one verdict speaks of
    both: what happens at initialization, then what training made of it.
    """
    out: dict[str, Verdict] = {}
    for label, record in records.items():
        if isinstance(record, Propagation):
            out[label] = propagation_verdict(label, record)
    for record in records.values():
        if not isinstance(record, Convergence):
            continue
        for name, sentence in record.verdicts().items():
            sentence = sentence.rstrip(".")
            if name in out:
                known = out[name]
                said = sentence.removeprefix("Trains: ")
                said = said[:1].lower() + said[1:]
                out[name] = dataclasses.replace(known, text=f"{known.text}. Training: {said}")
            else:
                out[name] = Verdict(name, "", sentence)
    return list(out.values())
