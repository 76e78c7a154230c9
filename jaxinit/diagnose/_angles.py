"""Inputs that become alike, to the last digit of bfloat16 and beyond."""

from __future__ import annotations

import math

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import Case, finding, most_severe
from jaxinit.diagnose._certainty import Figure, how_sure, more_seeds
from jaxinit.diagnose._gains import small_gains
from jaxinit.diagnose._profile import is_exponential, wander
from jaxinit.diagnose._verdict import among_, place
from jaxinit.records import Finding, Statistic
from jaxinit.records._depth import positions

#: Inputs that start closer than this are the same for every purpose: nothing can be said of their angle.
_SAME = 1e-9
#: Below this two inputs of float32 differ by rounding: how the rest of their distance wanders tells nothing.
_BLIND = 1e-12
#: Positions closer than this at the start are alike already; cosines in float32 are rounded by so much.
_APART, _ROUNDING = 1e-2, 1e-6
#: Seeds of which all have to agree: by chance with probability 2^-10 < 1e-3.
_ALL = 10


def distances(stat: Statistic | None) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """1 - c by site, its standard error and its largest over seeds, averaged over the pairs that start apart.

    None if no pair does.
    """
    if stat is None or not stat.mean.size:
        return None
    start = stat.mean[np.isfinite(stat.mean).all(axis=1)][:1]
    if not start.size:
        return None
    apart = start[0] > _SAME
    if not apart.any():
        return None
    error = np.nan_to_num(stat.stderr[:, apart].mean(axis=1))
    return stat.mean[:, apart].mean(axis=1), error, stat.max[:, apart].mean(axis=1)


def collapse(case: Case) -> list[Finding]:
    """1 - c has fallen by more than exp(-6); an error where that is sure and bfloat16 no longer tells the inputs apart.

    A note where it has done so in the networks seen, but the walk of narrow layers may explain it. What tells inputs
    apart may have passed the smallest of the gains near zero: 1 - c may fall by its square more.
    """
    r, out = case.record, []
    log_share = at.COLLAPSE_LOG + 2.0 * min(small_gains(case).values(), default=0.0)
    for kind, sites in case.families:
        found = distances(r.one_minus_correlation)
        if found is None:
            return []
        value, error, most = found
        index = sites[np.isfinite(value[sites]) & (value[sites] >= 0.0) & ~case.single[sites]]
        blind = np.flatnonzero(value[index] < _BLIND)
        index = index[: blind[0] + 1] if blind.size else index
        if len(index) < 2:
            continue
        first, last = int(index[0]), int(index[-1])
        share = math.exp(log_share)
        ratio, p_value = _fallen(case, index, np.maximum(value[index], _BLIND), float(most[last]), log_share)
        severity = how_sure(p_value) or ("note" if ratio < share else None)
        if severity is None:
            continue
        dof = max(r.count - 1, 1) if r.count else math.inf
        blurred = Figure(value[last], float(error[last]), dof).p_below(at.BF16_ONE_MINUS_C) < at.SURE
        with np.errstate(divide="ignore"):
            log = np.log(value[index])
        x = positions(r.sites)[index]
        steady = is_exponential(x[np.isfinite(log)], log[np.isfinite(log)])
        how = (
            f"by ×{ratio ** (1.0 / (x[-1] - x[0])):.3g} a layer (the ordered phase)"
            if steady and ratio > 0.0
            else "like a power of depth (as ReLU does at its best scale)"
        )
        among = among_(kind, len(index))
        text = (
            f"Inputs become alike{among}: 1 - c falls {how}, from {value[first]:.2g} at {place(r.sites[first])} to "
            f"{value[last]:.2g} at {place(r.sites[last])}."
        )
        blurred = blurred and severity == "warning"
        if blurred:
            text += " bfloat16 no longer tells them apart."
        if severity == "note":
            text += " Layers this narrow for their number may do that by chance: wider ones would tell."
        text += more_seeds(severity, p_value, r.count)
        remedy = case.rescale if steady and "critical" in case.rescale else case.damp
        out.append(
            finding(
                "collapse",
                "error" if blurred else severity,
                text,
                (r.sites[first], r.sites[last]),
                (
                    "(1 - c) at the last site over that at the first",
                    Figure(ratio, error[last] / value[first], dof, case.basis),
                ),
                share,
                p_value,
                "" if severity == "note" else remedy,
                at.COLLAPSE_SOURCE,
                least=0.0,
                first=float(value[first]),
                last=float(value[last]),
            )
        )
    return most_severe(out, lambda f: f.value)


def rank_collapse(case: Case) -> list[Finding]:
    """The positions of one input have become alike: attention averages over them."""
    r, stat = case.record, case.record.position_correlation
    if stat is None or not stat.mean.size:
        return []
    out = []
    value, most = (np.maximum(1.0 - v, _ROUNDING) for v in (stat.mean, stat.min))
    error = np.nan_to_num(stat.stderr)
    for kind, sites in case.families:
        index = sites[np.isfinite(value[sites])]
        if len(index) < 2 or value[index[0]] < _APART:
            continue
        first, last = int(index[0]), int(index[-1])
        ratio, p_value = _fallen(case, index, value[index], float(most[last]))
        severity = how_sure(p_value)
        if severity is None:
            continue
        among = among_(kind, len(index))
        text = (
            f"The positions of an input become alike{among}: 1 - c falls from {value[first]:.2g} at "
            f"{place(r.sites[first])} to {value[last]:.2g} at {place(r.sites[last])}. Attention averages over "
            "positions; skips keep them apart."
        )
        figure = Figure(
            ratio, error[last] / value[first], max(r.count - 1, 1) if r.count else math.inf, case.basis
        )
        out.append(
            finding(
                "rank_collapse",
                severity,
                text + more_seeds(severity, p_value, r.count),
                (r.sites[first], r.sites[last]),
                ("(1 - c) of positions at the last site over that at the first", figure),
                math.exp(at.COLLAPSE_LOG),
                p_value,
                case.damp,
                at.RANK_SOURCE,
                least=0.0,
                first=float(value[first]),
                last=float(value[last]),
            )
        )
    return most_severe(out, lambda f: f.value)


def _fallen(
    case: Case, index: np.ndarray, value: np.ndarray, most: float, log_share: float = at.COLLAPSE_LOG
) -> tuple[float, float]:
    """(1 - c) at the last site over that at the first, and the p-value of a fall by more than the threshold.

    1 - c has heavy tails over seeds in narrow networks, so that its mean over a few is too low: its steps from site
    to site tell how far it wanders, and half the variance of that walk is granted (as for `Change.annealed`). With
    ten seeds and more every one of them has to lie below the threshold, which has probability 2^-count if half of
    all networks do.
    """
    ratio, count = float(value[-1] / value[0]), case.record.count
    if count >= _ALL and most >= math.exp(log_share) * value[0]:
        return ratio, 1.0
    log = np.log(value)
    walk = max(wander(log[np.isin(index, strand)]) for strand in case.strands(index)) if count else 0.0
    fall = Figure(math.log(ratio) + 0.5 * walk**2, walk, count + len(value))
    return ratio, fall.p_below(log_share)


def bfloat16(case: Case) -> list[Finding]:
    """The first site at which two inputs differ by less than bfloat16 resolves; a warning where it is used."""
    r = case.record
    found = distances(r.one_minus_correlation)
    if found is None:
        return []
    value, error, _ = found
    dof = max(r.count - 1, 1) if r.count else math.inf
    for i in range(case.depth):
        p_value = Figure(value[i], float(error[i]), dof).p_below(at.BF16_ONE_MINUS_C) * case.depth
        if math.isfinite(value[i]) and p_value < at.SURE:
            used = any("bfloat16" in s.dtype for s in r.layout) or "bfloat16" in str(
                r.config.get("dtype", "")
            )
            text = (
                f"From {place(r.sites[i])} on two inputs differ by less than bfloat16 resolves: "
                f"1 - c = {value[i]:.2g}, entries differ by {math.sqrt(2 * max(value[i], 0.0)):.1g} of their rms."
            )
            return [
                finding(
                    "bf16_risk",
                    "warning" if used else "note",
                    text,
                    (r.sites[i],),
                    ("1 - c", Figure(float(value[i]), float(error[i]), dof, case.basis)),
                    at.BF16_ONE_MINUS_C,
                    p_value,
                    "dtype=jnp.float32" if used else "",
                    at.BF16_SOURCE,
                    least=0.0,
                )
            ]
    return []
