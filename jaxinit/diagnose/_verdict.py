"""One sentence a network: what became of its signal and its gradient. Numbers, then one word."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from jaxinit.diagnose._rate import Rate, rate
from jaxinit.diagnose.thresholds import DECADES
from jaxinit.records import Finding, Propagation
from jaxinit.records._tables import format_log

#: Kind of finding -> the word for a network in which it is the worst.
WORDS = {
    "not_finite_signal": "not finite",
    "not_finite_gradient": "not finite",
    "overflow": "exploding",
    "underflow": "vanishing",
    "zero_signal": "dead",
    "no_gradient": "dead",
    "dying": "dying",
    "dead_units": "dead units",
    "saturated_units": "saturated",
    "identical_units": "identical units",
    "vanishing_signal": "vanishing",
    "vanishing_gradient": "vanishing",
    "exploding_signal": "exploding",
    "exploding_gradient": "exploding",
    "chaos": "chaotic",
    "large_values": "too large",
    "collapse": "collapsing",
    "rank_collapse": "collapsing",
    "step": "uneven",
    "imbalance": "uneven",
    "unused_parameter": "unused parameters",
    "zero_start": "alive",
    "small_gain": "alive",
    "stuck_at_zero": "partly dead",
    "update_ratio": "uneven",
    "wrong_default": "vanishing",
    "bf16_risk": "too fine for bfloat16",
    "spread": "alive",
    "zero_output": "alive",
    "silent_branch": "alive",
}
#: How a group of sites is called that are the steps of one place.
STEPS = "steps of"

#: Every kind of finding.
KINDS = tuple(WORDS)

#: What the words mean; printed under every list of verdicts.
RULE = (
    "Alive: no error and no warning. Likely: beyond a threshold as estimated, not surely. Vanishing, exploding: the "
    f"signal or its gradient surely changes by more than 10^{DECADES:g} in second moment from the first to the last "
    "layer, by a factor a layer and beyond what narrow layers alone do. Dead: one of them is exactly 0. Chaotic: the "
    "gradient explodes while the signal keeps its size. Collapsing: two inputs become alike. Typical: exp of the mean "
    "log over seeds. ±: one standard error. The factor a layer: a least-squares fit of the mean log against depth."
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A label, a sentence, and one word for it: one of `WORDS`, or empty where the numbers stand alone."""

    label: str
    word: str
    text: str


def word(findings: Sequence[Finding]) -> str:
    """The one word for a network with these findings, worst first."""
    bad = [f for f in findings if f.severity in ("error", "warning")]
    if bad and (bad[0].kind, bad[0].severity) == ("no_gradient", "warning"):
        return "partly cut off"
    return WORDS[bad[0].kind] if bad else "alive"


def seeds(count: int) -> str:
    """`64 seeds`, `1 seed`, `theory`."""
    return "theory" if not count else f"{count} seed{'s' * (count > 1)}"


def among_(kind: str, count: int, preposition: str = "among") -> str:
    """Of which sites a sentence speaks: ` among 12 Dense sites`, nothing where all are meant."""
    sites = kind if kind.startswith(STEPS) else f"{kind} sites"
    return f" {preposition} {count} {sites}" if kind else ""


def place(site: str) -> str:
    """A site in a sentence: `layer 7`, or its path."""
    return f"layer {site}" if site.isdigit() else site


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
    first, last = place(record.sites[0]), place(record.sites[-1])
    if r.last == -math.inf and r.dies_at is not None:
        where = "everywhere" if r.dies_at == record.sites[0] else f"from {place(r.dies_at)} on"
        return f"the signal is exactly 0 {where}"
    if not math.isfinite(r.last):
        return f"the signal at {last} is not finite"
    change = _factor(r)
    return (
        f"the typical signal ⟨z²⟩ goes from {format_log(r.first)} at {first} to "
        f"{_value(r.last, r.last_stderr)} at {last}" + (f", {change}" if change else "")
        + f" ({seeds(r.count)})"
    )  # fmt: skip


def _gradient(record: Propagation, r: Rate) -> str:
    first, last = place(record.sites[0]), place(record.sites[-1])
    if r.first == -math.inf:
        return f"no gradient reaches {first}: it is exactly 0 there"
    if not math.isfinite(r.first) or not math.isfinite(r.last):
        return f"the gradient is not finite between {first} and {last}"
    ratio = format_log(r.first - r.last)
    return f"the gradient's second moment at {first} is {ratio} times that at {last}"


def sentence(record: Propagation) -> str:
    """What the ends of the network say of signal and gradient, without a judgement."""
    forward, backward = rate(record), rate(record, "log_grad_second_moment")
    parts = [] if forward is None else [_signal(record, forward)]
    if backward is not None:
        parts.append(_gradient(record, backward))
    return "; ".join(parts) or "no second moments were recorded"
