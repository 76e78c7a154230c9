"""Layers out of step with the others: their scale, and how fast they would learn."""

from __future__ import annotations

import itertools
import math

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import BLOCKS, Case, finding, level, roles
from jaxinit.diagnose._certainty import Figure
from jaxinit.diagnose._verdict import among_, place
from jaxinit.records import Finding
from jaxinit.records._tables import format_log

_LEAST = 5
_DECADE = 1.0 / math.log(10.0)


def steps(case: Case) -> list[Finding]:
    """The layer into which the signal's second moment jumps, against the steps of its neighbours."""
    if case.forward is None:
        return []
    out = []
    for kind, sites in case.families:
        p = case.within(case.forward, sites)
        if len(p.sites) < _LEAST:
            continue
        step = np.diff(p.log)
        usual = _usual(p.sites, step)
        deviation = np.nan_to_num(step - usual)
        if not np.isfinite(usual).any():
            continue
        scale = max(1.4826 * float(np.median(np.abs(deviation[np.isfinite(usual)]))), 0.1)
        i = int(np.argmax(np.abs(deviation)))
        score = abs(float(deviation[i])) / scale
        # One site that is off makes two steps, there and back: it stands between them.
        back = i > 0 and -deviation[i - 1] * np.sign(deviation[i]) > 0.5 * abs(deviation[i])
        odd = p.sites[i] if back else p.sites[i + 1]
        # The scatter of the other steps is the error of one, whatever it comes from.
        decades = Figure(abs(float(deviation[i])), scale, len(step) - 1, f"{len(step)} steps").scaled(_DECADE)
        p_value = decades.p_above(math.log10(at.STEP_FACTOR)) * len(step)
        if score < at.STEP_SCORE or p_value >= at.SURE:
            continue
        among = among_(kind, len(p.sites))
        text = (
            f"{place(odd)} disagrees with its neighbours{among}: the second moment changes by "
            f"×{format_log(float(step[i]))} from {place(p.sites[i])} to {place(p.sites[i + 1])}, "
            f"by ×{format_log(float(usual[i]))} elsewhere."
        )
        out.append(
            finding(
                "step",
                "warning",
                text,
                (odd,),
                ("decades of the step beyond the median step", decades),
                math.log10(at.STEP_FACTOR),
                p_value,
                case.rescale,
                at.STEP_SOURCE,
                score=score,
            )
        )
    return sorted(out, key=lambda f: -f.value)[:1]


def _usual(sites: tuple[str, ...], step: np.ndarray) -> np.ndarray:
    """The median step between sites of the same roles in their blocks, of three or more such; else that of all.

    What every block does alike is made so: the last layer of each residual branch may start small. Where the stream
    enters the blocks, or leaves them, nothing tells what is usual: nan.
    """
    own = roles(sites)
    pairs = list(itertools.pairwise(own))
    usual = np.full(step.shape, np.median(step))
    for i, pair in enumerate(pairs):
        alike = np.array([other == pair for other in pairs])
        if alike.sum() >= BLOCKS:
            usual[i] = np.median(step[alike])
        elif any(own.count(one) >= BLOCKS for one in pair):
            usual[i] = np.nan
    return usual


def imbalance(case: Case) -> list[Finding]:
    """The layer whose weights' relative gradient is furthest from its like, by a factor 100 and more."""
    r = case.record
    name = "update_ratio" if r.update_ratio is not None else "weight_grad_norm"
    stat = getattr(r, name)
    if stat is None or not stat.mean.size:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        log, error = np.log(stat.mean), stat.stderr / stat.mean
    index = np.flatnonzero(np.isfinite(log))
    if len(index) < 3:
        return []
    usual = level([r.sites[i] for i in index], log[index])
    worst = int(np.argmax(np.abs(log[index] - usual)))
    i, away = int(index[worst]), float(log[index[worst]] - usual[worst])
    noise = 0.0 if stat.count < 2 else float(np.nan_to_num(error[i]))
    dof = stat.count - 1 if stat.count > 1 else math.inf
    decades = Figure(abs(away), noise, dof, case.basis).scaled(_DECADE)
    p_value = decades.p_above(math.log10(at.IMBALANCE)) * len(index)
    if p_value >= at.SURE:
        return []
    what = "gradient over norm of the weights" if name == "update_ratio" else "gradient of the weights"
    text = (
        f"{place(r.sites[i])} is out of balance: its {what} is {format_log(abs(away))} times "
        f"{'above' if away > 0 else 'below'} the median of its like, so no learning rate of plain SGD suits both."
    )
    return [
        finding(
            "imbalance",
            "warning",
            text,
            (r.sites[i],),
            (f"decades from the median {name}", decades),
            math.log10(at.IMBALANCE),
            p_value,
            case.rescale,
            at.IMBALANCE_SOURCE,
        )
    ]
