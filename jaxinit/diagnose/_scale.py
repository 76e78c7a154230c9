"""Signals and gradients that vanish or explode, drift, or differ from network to network."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import TABLES, Case, finding, most_severe
from jaxinit.diagnose._certainty import Figure, more_seeds, trigamma
from jaxinit.diagnose._gains import behind
from jaxinit.diagnose._profile import Change, Profile, is_exponential, seen_units
from jaxinit.diagnose._verdict import among_, place
from jaxinit.records import Finding
from jaxinit.records._tables import format_log

_LN10 = math.log(10.0)
_LEVELS = (("error", at.ERROR_DECADES), ("warning", at.DECADES), ("note", at.NOTE_DECADES))


def vanishing_or_exploding(case: Case) -> list[Finding]:
    """One finding a direction, of the group of sites in which it is worst.

    Vanishing is judged by the annealed change, which does not count the drift of narrow networks; exploding by the
    typical one (see `Change`). A change that follows a power of depth rather than a factor a layer stays a note:
    it does not run away. So does a signal or gradient that vanishes over the steps of a recurrent cell: what it
    forgets is a matter of how far the task looks back, and every cell forgets. What does not go with depth, but with
    whether a site lies on the stream or in a branch, is no rate.
    """
    out = []
    for forward in (True, False):
        found = [f for f in (_family(case, *group, forward) for group in case.travels) if f is not None]
        out += most_severe(found, lambda f: -abs(f.value))
    return out


def grade(moved: Change) -> tuple[str, Figure, float, float] | None:
    """Severity, the figure in decades, the threshold it clears, and its p-value; None for no finding.

    What is estimated to be beyond the warning's threshold, but not surely so, is likely. Growth that is sure to be
    worth a note is estimated by the annealed change then, which is the one that theory speaks of.
    """
    if moved.typical.value < 0.0:
        figure = moved.annealed if moved.annealed.value < 0.0 else Figure(0.0)
    else:
        figure = moved.typical
    decades = figure.scaled(1.0 / _LN10)
    size = -decades if decades.value < 0.0 else decades
    sure = None
    for severity, threshold in _LEVELS:
        p = size.p_above(threshold)
        if p < at.SURE:
            sure = severity, decades, threshold, p
            break
    if sure is not None and sure[0] != "note":
        return sure
    if sure is not None and decades.value > 0.0:
        decades = size = moved.annealed.scaled(1.0 / _LN10)
    p = size.p_above(at.DECADES)
    return ("likely", decades, at.DECADES, p) if p < at.LIKELY else sure


def _family(case: Case, kind: str, sites: np.ndarray, timed: bool, forward: bool) -> Finding | None:
    whole = case.forward if forward else case.backward
    if whole is None:
        return None
    p = case.within(whole, sites)
    if kind:  # a layer of such a group is one of its sites
        order = {case.record.sites[i]: float(n) for n, i in enumerate(sites)}
        p = dataclasses.replace(p, x=np.array([order[site] for site in p.sites]))
    if len(p.sites) < 2 or (forward and case.silent[sites].all()):
        return None
    travelled = p if forward else p.reversed()
    moved = case.change(travelled)
    graded = grade(moved)
    if graded is None:
        return None
    severity, decades, threshold, p_value = graded
    noted = severity == "note"
    if not (timed or _goes_with_depth(case, kind, sites, travelled, forward, noted=noted)):
        return None
    steady = is_exponential(travelled.x, travelled.log)
    grows = decades.value > 0.0
    noun = "signal" if forward else "gradient"
    if (not steady or (timed and not grows)) and severity != "note":
        severity, threshold, p_value = "note", at.NOTE_DECADES, decades.p_beyond(at.NOTE_DECADES)
    name, text = (
        f"{'exploding' if grows else 'vanishing'}_{noun}",
        _sentence(travelled, moved, noun, kind, steady, "step" if timed else "layer"),
    )
    chaotic = not forward and grows and severity != "note" and _decorrelates(case)
    if chaotic:
        name = "chaos"
        text += f" The signal keeps its size while inputs stay apart{_angles(case)}: the chaotic phase."
    text += more_seeds(severity, p_value, whole.count)
    span = float(travelled.x[-1] - travelled.x[0])
    factor = moved.typical.scaled(1.0 / span)
    return finding(
        name,
        severity,
        text,
        (p.sites[0], p.sites[-1]),
        (f"decades of the {noun}'s second moment, end to end", decades),
        math.copysign(threshold, decades.value),
        p_value,
        "" if severity == "note" and not steady else _remedy(case, grows, timed),
        at.DECADES_SOURCE,
        factor_a_layer=math.exp(factor.value),
        factor_low=math.exp(factor.interval()[0]),
        factor_high=math.exp(factor.interval()[1]),
        spread_of_log=moved.spread,
        **_reaches(travelled, moved.typical.value / span),
    )


def _goes_with_depth(
    case: Case, kind: str, sites: np.ndarray, travelled: Profile, forward: bool, *, noted: bool
) -> bool:
    """Whether a change is one of depth, and neither that of gains near zero nor of a site on another level.

    It is not where the gradients without the gains do not change alike, nor where steps lead back by half of the way
    and more (of sites of one role each: one step), unless sites of one role change alike; `noted` as much as a note
    asks.
    """
    value, gains = float(travelled.log[-1] - travelled.log[0]), np.zeros(case.depth)
    if not forward:
        gains = 2.0 * behind(case)
        passed = gains[[case.record.sites.index(site) for site in travelled.sites]]
        if passed.any():
            travelled = _less(travelled, passed)
            if not _alike(case, travelled, value, noted):
                return False
            value = float(travelled.log[-1] - travelled.log[0])
    if not kind:
        return True
    whole = case.forward if forward else case.backward
    assert whole is not None  # `travelled` is a part of it
    back = np.maximum(-math.copysign(1.0, value) * np.diff(travelled.log), 0.0)
    strands = [case.within(whole, one) for one in case.strands(sites) if len(one) < len(sites)]
    if float(back.sum() if strands else back.max()) < 0.5 * abs(value):
        return True
    strands = [_less(p, gains[[case.record.sites.index(site) for site in p.sites]]) for p in strands]
    return any(
        _alike(case, p if forward else p.reversed(), value, noted) for p in strands if len(p.sites) > 1
    )


def _less(p: Profile, log: np.ndarray) -> Profile:
    return dataclasses.replace(p, log=p.log - log, samples=None if p.samples is None else p.samples - log)


def _alike(case: Case, p: Profile, value: float, noted: bool) -> bool:
    """Whether a profile changes in the direction of `value` by what is worth a note, or by more than that."""
    graded = grade(case.change(p))
    return graded is not None and (noted or graded[0] != "note") and graded[1].value * value > 0.0


def _remedy(case: Case, grows: bool, timed: bool) -> str:
    if timed:
        return "recurrent_kernel_init=ji.orthogonal()" if grows else "# forget gates of an LSTM open: bias 1"
    return case.tame if grows else case.rescale


def _reaches(p: Profile, slope: float) -> dict[str, float]:
    """Layers to travel until the rms has changed by 1e3, and until it leaves the range of float32."""
    limit = 2.0 * (at.LOG_HUGE if slope > 0.0 else at.LOG_TINY)
    return {
        "layers_to_1e3": math.log(1e6) / abs(slope),
        "layers_to_float32": (limit - float(p.log[0])) / slope,
    }


def _sentence(p: Profile, moved: Change, noun: str, kind: str, steady: bool, unit: str) -> str:
    span = float(p.x[-1] - p.x[0])
    typical = moved.typical
    verb = "grows" if typical.value > 0.0 else "falls"
    ratio = format_log(typical.value)
    first, last = (place(s) for s in (p.sites[0], p.sites[-1]))
    ends = f"its second moment at {last} is {ratio} times that at {first}"
    among = among_(kind, len(p.sites), "over")
    if not steady:
        power_of = "depth" if unit == "layer" else "time"
        power = float(np.polyfit(np.log(p.x - p.x[0] + 1.0), p.log, 1)[0])
        return f"The {noun} {verb} slower than by a factor a {unit}{among} (about {power_of}^{power:.2g}): {ends}."
    mean, (low, high) = math.exp(typical.value / span), typical.scaled(1.0 / span).interval()
    interval = "" if low == high else f" [{math.exp(low):.3g}, {math.exp(high):.3g}]"
    reach = _reaches(p, typical.value / span)
    size = "1000 times the rms" if typical.value > 0.0 else "a thousandth of the rms"
    return (
        f"The {noun} {verb} by ×{mean:.3g}{interval} a {unit}{among}: {ends}; {size} is reached after "
        f"{reach['layers_to_1e3']:.0f} {unit}s, the end of float32's range after {reach['layers_to_float32']:.0f}."
    )


def large_values(case: Case) -> list[Finding]:
    """The first layer whose values are so large that no nonlinearity or softmax takes them, and so large an output.

    Of values that a module returns: a bare product may be scaled by what follows (as in NTK parametrization). Large
    inputs and a large output are faults; what a layer amplifies may meet a norm, and is a note. Large inputs explain
    the output.
    """
    r, p = case.record, case.forward
    if not r.layout or p is None:
        return []
    at_site = {site: n for n, site in enumerate(p.sites)}
    index = [i for i, s in enumerate(r.layout) if s.name in at_site and s.role == "output" and case.matrix(i)]
    figures = {i: _decades(case, p, at_site[r.sites[i]]) for i in index}
    tested = [(i, f, f.p_above(at.DECADES) * len(index)) for i, f in figures.items()]
    large = [one for one in tested if one[-1] < at.SURE]
    out = []
    if large:
        i, figure, p_value = large[0]
        rms = 10.0 ** (0.5 * figure.value)
        others = f", as at {len(large) - 1} more layer{'s' * (len(large) > 2)}" if len(large) > 1 else ""
        text = f"The values of {place(r.sites[i])} are large, rms {rms:.3g}{others}: "
        gain = _amplifies(case, i)
        if i == index[0] and r.layout[i].kind not in TABLES and gain < at.AMPLIFIES:
            text += f"its weights amplify by {gain:.2g} only, so the inputs are large. Scale them to a deviation of 1."
            remedy = f"x = x / {rms / gain:.3g}  # the inputs"
            return [_large("warning", text, r.sites[i], figure, at.DECADES, p_value, remedy)]
        text += "beyond what softmax, tanh or a logistic function take, where no norm stands in between."
        out.append(_large("note", text, r.sites[i], figure, at.DECADES, p_value, _redrawn(case, i)))
    last = case.depth - 1
    if r.sites[last] in at_site and r.layout[last].role == "output":
        figure = _decades(case, p, at_site[r.sites[last]])
        p_value = figure.p_above(at.OUTPUT_DECADES)
        if p_value < at.SURE:
            name, rms = place(r.sites[last]), 10.0 ** (0.5 * figure.value)
            where = "" if name == "output" else f", {name},"
            text = (
                f"The output{where} starts at an rms of {rms:.3g}: its softmax is sure of a guess, its squared error "
                f"is {rms**2:.2g}."
            )
            remedy = _redrawn(case, last)
            out.append(_large("warning", text, r.sites[last], figure, at.OUTPUT_DECADES, p_value, remedy))
    return out


def _large(
    severity: str, text: str, site: str, figure: Figure, threshold: float, p_value: float, remedy: str
) -> Finding:
    evidence = ("log10 of the second moment", figure)
    return finding(
        "large_values", severity, text, (site,), evidence, threshold, p_value, remedy, at.LARGE_SOURCE
    )


def _redrawn(case: Case, site: int) -> str:
    entered = case.record.layout[site].parameters
    return case.redraw(entered[0]) if entered else case.rescale


def _decades(case: Case, p: Profile, n: int) -> Figure:
    """log10 of the second moment at a site; one network's has the error of a mean square of so many normal units."""
    error, dof = float(p.stderr[n]), p.count - 1 if p.count > 1 else math.inf
    if p.count == 1:
        units = seen_units(case.record, 1)[case.record.sites.index(p.sites[n])]
        error = math.sqrt(trigamma(0.5 * max(float(units), 1.0)))
    return Figure(float(p.log[n]), error, dof, case.basis).scaled(1.0 / _LN10)


def _amplifies(case: Case, site: int) -> float:
    """What the matrix of a site multiplies the rms by: the root of the sum of squares that enters one unit."""
    p, shape = case.record.parameters, case.matrix(site)
    assert p is not None  # it has a matrix
    norm = float(p.norm.mean[p.index(case.record.layout[site].parameters[0])])
    return norm / math.sqrt(shape[-1])


def _decorrelates(case: Case) -> bool:
    """Whether the signal keeps its size and two inputs keep at least half of their distance."""
    stat, p = case.record.one_minus_correlation, case.forward
    if stat is None or not stat.mean.size or p is None:
        return False
    log = p.finite().log
    with np.errstate(invalid="ignore"):
        first, last = stat.mean[0].mean(), stat.mean[-1].mean()
    return bool(len(log) > 1 and abs(log[-1] - log[0]) < at.NOTE_DECADES * _LN10 and last >= 0.5 * first)


def _angles(case: Case) -> str:
    stat = case.record.one_minus_correlation
    assert stat is not None  # _decorrelates has looked at it
    return f" (1 - c from {stat.mean[0].mean():.2g} to {stat.mean[-1].mean():.2g})"


def spread(case: Case) -> list[Finding]:
    """A note where networks of one law differ by a factor ten and more: depth over width is large."""
    out = []
    for noun, p in (("signal", case.forward), ("gradient", case.backward)):
        if p is None or p.count < 2:
            continue
        finite = p.finite()
        if len(finite.sites) < 2:
            continue
        moved = case.change(finite if noun == "signal" else finite.reversed())
        n = p.count
        # A standard deviation over n seeds has relative standard error 1 / sqrt(2 (n - 1)) for normal logs.
        relative = 1.0 / math.sqrt(2.0 * (n - 1))
        figure = Figure(moved.spread, moved.spread * relative, n - 1, f"{n} seeds")
        excess = math.log(moved.spread / at.SPREAD) if moved.spread else -math.inf
        p_value = Figure(excess, relative, n - 1).p_above(0.0)
        if p_value < at.SURE:
            times = format_log(moved.spread)
            text = (
                f"Networks of this law differ: the second moment of the {noun} varies from seed to seed by a factor "
                f"{times} (one standard deviation of its log). That is depth over width, not scale: wider layers, "
                "orthogonal weights or skips narrow it."
            )
            where = (finite.sites[0], finite.sites[-1])
            out.append(
                finding(
                    "spread",
                    "note",
                    text,
                    where,
                    (f"standard deviation of the log of the {noun}'s second moment", figure),
                    at.SPREAD,
                    p_value,
                    "",
                    at.SPREAD_SOURCE,
                    least=0.0,
                )
            )
    return out[:1]
