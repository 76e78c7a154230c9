"""Layers out of step with the others: their scale, and how fast they would learn."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import BLOCKS, Case, finding, most_severe, roles, scatter
from jaxinit.diagnose._certainty import Figure, how_sure, log_mean, more_seeds, trigamma
from jaxinit.diagnose._gains import apart
from jaxinit.diagnose._profile import seen_units
from jaxinit.diagnose._verdict import among_, place
from jaxinit.records import Finding
from jaxinit.records._tables import format_log

_LEAST = 5
#: Numbers of which a mean square is judged.
_FEWEST = 4
_LN10 = math.log(10.0)
_DECADE = 1.0 / _LN10


def steps(case: Case) -> list[Finding]:
    """The layer into which the signal's second moment jumps, against the steps of its neighbours.

    The scatter of the steps is the error of each; where a step leads through fewer units than most do, the variance of
    the log of their mean square is added, and what that log is below the log of the mean is taken out. What was seen in
    less than a few numbers is not judged.
    """
    if case.lengths is None:
        return []
    count = case.record.count
    out, seen, drift = [], seen_units(case.record, count), _drift(case)
    for kind, sites in case.families:
        p = case.within(case.lengths, sites)
        if len(p.sites) < _LEAST:
            continue
        at_sites = np.array([case.record.sites.index(site) for site in p.sites])
        length = p.log - drift[at_sites]
        step = np.diff(length)
        usual, known = _usual(p.sites, length, _passes(case, at_sites))
        deviation = step - usual
        size = np.abs(deviation)
        few, judged = _of_few(seen[at_sites])
        small = deviation[-1] <= 0.0  # a small output is no fault: a head that starts small, or at zero
        judged[-1] &= not small
        usual_steps = deviation[known] if known.any() else step - np.median(step)
        scale = scatter(
            usual_steps[:-1] if small and known[-1] and len(usual_steps) >= _LEAST - 1 else usual_steps
        )
        errors = np.hypot(scale, few)
        i = int(np.argmax(np.where(judged, (size - _LN10) / errors, -math.inf)))
        score = float(size[i]) / scale
        # Sites that are off make two steps, there and back: the first of them stands behind the nearest such step.
        there = np.flatnonzero(-deviation[:i] * np.sign(deviation[i]) > 0.5 * abs(deviation[i]))
        into = int(there[-1]) if there.size and i - there[-1] <= len(step) // 2 else i
        odd = p.sites[into + 1]
        decades = Figure(float(size[i]), float(errors[i]), len(step) - 1, f"{len(step)} steps").scaled(
            _DECADE
        )
        # Every step is tried; one known far better than this one is no second chance of its size.
        tried = float(np.minimum(np.square(errors / errors[i]), 1.0).sum())
        p_value = decades.p_above(math.log10(at.STEP_FACTOR)) * tried
        severity = how_sure(p_value)
        if score < at.STEP_SCORE or severity is None or not judged[i]:
            continue
        among = among_(kind, len(p.sites))
        elsewhere = (
            "elsewhere"
            if known[into]
            else f"to the {'largest' if deviation[into] > 0 else 'smallest'} elsewhere"
        )
        text = (
            f"{place(odd)} disagrees with its neighbours{among}: the second moment changes by "
            f"×{format_log(float(p.log[into + 1] - p.log[into]))} from {place(p.sites[into])} to {place(odd)}, "
            f"by ×{format_log(float(usual[into]))} {elsewhere}."
        )
        out.append(
            finding(
                "step",
                severity,
                text + more_seeds(severity, p_value, count),
                (odd,),
                ("decades of the step beyond the median step", decades),
                math.log10(at.STEP_FACTOR),
                p_value,
                case.rescale,
                at.STEP_SOURCE,
                score=score,
            )
        )
    return most_severe(out, lambda f: -f.value)


def _drift(case: Case) -> np.ndarray:
    """What the logarithm of a mean square of few normal numbers is below that of their variance; 0 of many.

    Where examples or positions are averaged before the logarithm is taken, how many they count for is not known.
    """
    r = case.record
    if not r.count or r.pooled > 1 or any(len(s.shape) > 2 for s in r.layout):
        return np.zeros(case.depth)
    return np.array([log_mean(0.5 * n) if n else 0.0 for n in seen_units(r, 1)])


def _of_few(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation of the log of each step that comes from few units, beyond the median step's, and whether they
    are enough to judge it. Nothing is added where their number is not known, or where theory knows all.
    """
    if not seen.all():
        return np.zeros(len(seen) - 1), np.ones(len(seen) - 1, bool)
    variance = np.array([trigamma(0.5 * n) for n in seen])
    both = variance[1:] + variance[:-1]
    enough = np.minimum(seen[1:], seen[:-1]) >= _FEWEST
    return np.sqrt(np.maximum(both - np.median(both), 0.0)), enough


def _passes(case: Case, sites: np.ndarray) -> np.ndarray:
    """For each step from block to block whether the stream passes layers of its own in between (to downsample)."""
    layout = case.record.layout
    out = np.zeros(len(sites) - 1, bool)
    if not layout or not all(layout[i].container for i in sites):
        return out
    for n, (a, b) in enumerate(itertools.pairwise(sites)):
        within = f"{layout[b].module}/"
        out[n] = any(s.parameters and not s.module.startswith(within) for s in layout[a + 1 : b])
    return out


def _usual(sites: tuple[str, ...], length: np.ndarray, passes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median step between sites of the same roles in their blocks, of three or more such, else that of all; and
    where that is known.

    What every block does alike is made so: the last layer of each residual branch may start small. Of other steps in a
    model of blocks, where the stream enters or leaves them or `passes` other layers between them, none is known to be
    usual: any is that leads to a length seen elsewhere.
    """
    own, step = roles(sites), np.diff(length)
    pairs = list(itertools.pairwise(own))
    usual, known = np.full(step.shape, np.median(step)), np.ones(step.shape, bool)
    blocks = any(count >= BLOCKS for count in Counter(own).values())
    for i, pair in enumerate(pairs):
        alike = np.array([other == pair for other in pairs]) & ~passes
        if alike.sum() >= BLOCKS and not passes[i]:
            usual[i] = np.median(step[alike])
        elif passes[i] or blocks:
            others = np.delete(length, i + 1)
            usual[i] = np.clip(length[i + 1], others.min(), others.max()) - length[i]
            known[i] = False
    return usual, known


def imbalance(case: Case) -> list[Finding]:
    """The layer whose weights' relative gradient is furthest from its like, by a factor 100 and more.

    What a gain near zero explains is no imbalance.
    """
    r = case.record
    name = "update_ratio" if r.update_ratio is not None else "weight_grad_norm"
    stat = getattr(r, name)
    if stat is None or not stat.mean.size:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        log, error = np.log(stat.mean), stat.stderr / stat.mean
    # A parameter that is used at many sites (the steps of a cell) is one.
    seen = [
        r.layout[i].parameters[0] if r.layout and r.layout[i].parameters else s for i, s in enumerate(r.sites)
    ]
    index = np.array([i for i in np.flatnonzero(np.isfinite(log)) if seen[i] not in seen[:i]], int)
    if len(index) < 3:
        return []
    places = [(r.layout[i].module, *r.layout[i].parameters) if r.layout else () for i in index]
    nearer, _ = apart(case, [r.sites[i] for i in index], places, log[index])
    worst = int(np.argmax(np.abs(nearer)))
    i, away = int(index[worst]), float(nearer[worst])
    noise, dof = float(np.nan_to_num(error[i])), stat.count - 1 if stat.count > 1 else math.inf
    if stat.count == 1:
        noise, dof = scatter(nearer), len(index) - 1
    decades = Figure(abs(away), noise, dof, case.basis).scaled(_DECADE)
    p_value = decades.p_above(math.log10(at.IMBALANCE)) * len(index)
    severity = how_sure(p_value)
    if severity is None:
        return []
    what = "gradient over norm of the weights" if name == "update_ratio" else "gradient of the weights"
    text = (
        f"{place(r.sites[i])} is out of balance: its {what} is {format_log(abs(away))} times "
        f"{'above' if away > 0 else 'below'} the median of its like, so no learning rate of plain SGD suits both."
    )
    return [
        finding(
            "imbalance",
            severity,
            text + more_seeds(severity, p_value, stat.count),
            (r.sites[i],),
            (f"decades from the median {name}", decades),
            math.log10(at.IMBALANCE),
            p_value,
            case.redraw(r.layout[i].parameters[0]) if r.layout and r.layout[i].parameters else case.rescale,
            at.IMBALANCE_SOURCE,
        )
    ]
