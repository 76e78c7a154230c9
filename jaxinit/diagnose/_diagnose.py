"""The entry point: every check on one record, and what of their findings is worth saying."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from jaxinit._core import checks
from jaxinit.diagnose import (
    _angles,
    _balance,
    _defaults,
    _gains,
    _numbers,
    _parameters,
    _scale,
    _units,
    _verdict,
)
from jaxinit.diagnose._case import Case
from jaxinit.records import PROBE_STATISTICS, Diagnosis, Finding, Propagation
from jaxinit.records._diagnosis import SEVERITIES
from jaxinit.records._sites import PARAMETER_STATISTICS


@dataclasses.dataclass(frozen=True)
class Check:
    """A check, what it is called, and the statistics of which it needs one."""

    name: str
    find: Callable[[Case], list[Finding]]
    needs: tuple[str, ...]


_PARAMETERS = "parameters."
#: What only models have.
_OF_MODELS = {*PROBE_STATISTICS, *(_PARAMETERS + name for name in PARAMETER_STATISTICS)}
_LOGS = ("log_second_moment", "log_grad_second_moment")

#: In the order in which findings of equal severity are told: causes before consequences.
CHECKS = (
    Check("values that are not finite", _numbers.not_finite, _LOGS),
    Check("silent sites", _numbers.silent, ("log_second_moment",)),
    Check("sites without gradient", _numbers.no_gradient, ("log_grad_second_moment",)),
    Check("identical units", _units.identical_units, ("mean", "log_second_moment")),
    Check("range of float32", _numbers.float_range, _LOGS),
    Check("scale of the signal and the gradient", _scale.vanishing_or_exploding, _LOGS),
    Check("size of the values", _scale.large_values, ("parameters.norm",)),
    Check("wrong defaults", _defaults.wrong_default, ("log_second_moment",)),
    Check("dead and saturated units", _units.flat_units, ("dead_fraction", "saturated_fraction")),
    Check("inputs that become alike", _angles.collapse, ("one_minus_correlation",)),
    Check("positions that become alike", _angles.rank_collapse, ("position_correlation",)),
    Check("layers against their neighbours", _balance.steps, ("log_second_moment",)),
    Check("balance of the layers' gradients", _balance.imbalance, ("update_ratio", "weight_grad_norm")),
    Check("parameters without gradient", _parameters.without_gradient, ("parameters.gradient_norm",)),
    Check("gains near zero", _gains.gains_near_zero, ("parameters.norm",)),
    Check("matrices stuck at zero", _parameters.stuck, ("parameters.gradient_norm",)),
    Check("size of the optimizer's steps", _parameters.steps, ("parameters.update_ratio",)),
    Check("bfloat16", _angles.bfloat16, ("one_minus_correlation",)),
    Check("spread between seeds", _scale.spread, _LOGS),
)

_FLAT = {"dead_units", "saturated_units"}
_OF_PARAMETERS = {"unused_parameter", "zero_start", "stuck_at_zero", "update_ratio"}
_SCALE = {"vanishing_signal", "exploding_signal", "vanishing_gradient", "exploding_gradient", "chaos"}
#: What grows saturates what follows (attention to one position only), exactly so in finite precision.
_GROWTH = {"exploding_signal", "exploding_gradient", "chaos", "overflow"}
#: Kind -> the kinds that are its consequences, said only if it is not.
_EXPLAINS = {
    "not_finite_signal": {
        *_SCALE, "overflow", "underflow", "imbalance", "step", "spread", "no_gradient", "large_values", *_FLAT,
        *_OF_PARAMETERS,
    },
    "not_finite_gradient": {*_SCALE, "overflow", "underflow", "imbalance", "spread", *_FLAT, *_OF_PARAMETERS},
    "zero_signal": {
        *_SCALE, "no_gradient", "dead_units", "saturated_units", "collapse", "imbalance", "step", *_OF_PARAMETERS,
    },
    "no_gradient": {"vanishing_gradient", "imbalance", *_OF_PARAMETERS},
    "dead_units": {"dying", *_OF_PARAMETERS},
    "identical_units": {*_SCALE, "collapse", "wrong_default", "imbalance", "spread", "bf16_risk", *_OF_PARAMETERS},
    **{kind: {"imbalance"} for kind in _SCALE},
    **{kind: {"imbalance", "no_gradient", "large_values", *_OF_PARAMETERS} for kind in _GROWTH},
    "step": {"large_values"},
    "collapse": {"bf16_risk"},
    "stuck_at_zero": {"unused_parameter", "zero_start"},
}  # fmt: skip


def diagnose(propagation: Propagation) -> Diagnosis:
    """What is wrong with a network at initialization: findings, worst first, each with its remedy in code.

    Arguments:
        propagation: a `Propagation` of any source: `jaxinit.simulate`, `jaxinit.meanfield.propagate` or
            `jaxinit.probe`. What was not recorded is not checked, and `skipped` says so.

    Returns:
        A `Diagnosis`, true if there is neither an error nor a warning. What would be a warning, but is not made sure by
        the seeds (p < 1e-3), is "likely" while its estimate is beyond the threshold, and says how many seeds would
        tell. Every finding says what, where, how surely
        (interval and p-value, from the standard errors over seeds; theory is exact), with what evidence, what to
        change, and where its threshold comes from (`jaxinit.diagnose.thresholds`).

    Checked are values that are not finite, zeros, sites without gradient, identical units, the range of float32,
    vanishing and exploding (forward, backward) and chaos, values that are large from the inputs on or at the output
    (of a probe), defaults known to be wrong, dead and saturated units,
    inputs, and positions of one input, that become alike, layers that disagree with their neighbours, balance of the
    gradients, parameters that get no gradient, gains near zero, the size of the optimizer's first step (of a probe
    with `optimizer=`), the resolution of bfloat16, and the spread between seeds.

    Second moments of deep finite networks have heavy tails, so logarithms are used throughout; and the drift that
    width alone causes (about -5 depth / (2 width) in the log, for He-initialized ReLU) is taken out by the variance
    over seeds before a signal is said to vanish (Hanin & Nica 2020). With one seed the spread between layers takes
    the place of that between seeds.

    Raises:
        TypeError: not a Propagation.

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.diagnose import diagnose
        >>> he = diagnose(ji.meanfield.propagate(ji.Network(30, 128, "relu", weight_variance=2.0)))
        >>> he.ok, he.word
        (True, 'alive')
        >>> xavier = diagnose(ji.meanfield.propagate(ji.Network(30, 128, "relu", weight_variance=1.0)))
        >>> [(f.severity, f.kind) for f in xavier]
        [('error', 'vanishing_signal'), ('error', 'vanishing_gradient'), ('warning', 'wrong_default')]
        >>> xavier.worst(1)[0].remedy
        'kernel_init=ji.he_normal()'
    """
    if not isinstance(propagation, Propagation):
        raise checks.wrong_type(
            "diagnose", "propagation", "a Propagation", propagation,
            "Make one with ji.simulate(network, seeds), ji.meanfield.propagate(network) or ji.probe(model, x).",
        )  # fmt: skip
    case = Case(propagation)
    found: list[Finding] = []
    checked, skipped = [], {}
    for check in CHECKS:
        if all(not _recorded(propagation, name) for name in check.needs):
            if not propagation.layout and set(check.needs) <= _OF_MODELS:
                continue  # no figure of this kind of record
            skipped[check.name] = " and ".join(check.needs) + " not recorded"
            continue
        checked.append(check.name)
        found += check.find(case)
    severe = {f.kind for f in found if f.severity in ("error", "warning")}
    explained = set().union(*(_EXPLAINS.get(kind, set()) for kind in severe))
    supposed = set().union(*(_EXPLAINS.get(f.kind, set()) for f in found if f.severity == "likely"))
    kept = [
        f for f in found if f.kind not in explained and not (f.severity == "likely" and f.kind in supposed)
    ]
    kept.sort(key=lambda f: SEVERITIES.index(f.severity))
    word = _verdict.word(kept) if checked else ""
    return Diagnosis(
        propagation.label, propagation.source, propagation.sites, propagation.count, tuple(kept), word,
        _sentence(propagation, kept, word, len(checked)), tuple(checked), skipped,
        dict(propagation.config), dict(propagation.provenance),
    )  # fmt: skip


def _recorded(record: Propagation, name: str) -> bool:
    owner = record.parameters if name.startswith(_PARAMETERS) else record
    stat = getattr(owner, name.removeprefix(_PARAMETERS), None)
    return stat is not None and bool(stat.mean.size)


def _sentence(record: Propagation, findings: list[Finding], word: str, checked: int) -> str:
    """The verdict: the worst finding and how many more there are; what the ends say where all is well."""
    bad = [f for f in findings if f.severity in ("error", "warning")]
    likely = [f for f in findings if f.severity == "likely"]
    start = word[:1].upper() + word[1:]
    if not checked:
        return "Nothing that can be checked was recorded."
    if not bad:
        others = len(findings) - len(likely)
        notes = f"; {others} note{'s' * (others > 1)}" if others else ""
        if likely:
            return (
                f"{start} as far as {_verdict.seeds(record.count)} tell{'s' * (record.count == 1)}, but likely "
                f"{_verdict.WORDS[likely[0].kind]}: {_first(likely[0])}{_others(likely)}{notes}."
            )
        ends = _verdict.sentence(record)
        silent = next((f for f in findings if f.kind == "zero_output"), None)
        if silent is not None:
            ends = f"up to {_verdict.place(silent.where[0])}, which starts at exactly 0 and passes no gradient back yet"
        return f"{start}: {ends}; {checked} checks passed{notes}."
    return f"{start}: {_first(bad[0])}{_others(bad)}."


def _first(found: Finding) -> str:
    """The first statement of a finding, to go on with."""
    what = re.split(r"; |\. ", found.what, maxsplit=1)[0].rstrip(".")
    return f"{what[:1].lower()}{what[1:]}"


def _others(found: list[Finding]) -> str:
    return f" ({len(found) - 1} more finding{'s' * (len(found) > 2)})" if len(found) > 1 else ""


def propagation_verdict(label: str, record: Propagation) -> _verdict.Verdict:
    """The verdict on one Propagation, under a label: the word of its diagnosis, and what its ends say."""
    if not _recorded(record, "log_second_moment") or len(record.sites) < 2:
        return _verdict.Verdict(label, "", _verdict.sentence(record))
    return _verdict.Verdict(label, diagnose(record).word, _verdict.sentence(record))
