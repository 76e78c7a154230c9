"""Zeros, infinities and what is no number: where they begin, and where no gradient arrives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import Case, always_zero, finding
from jaxinit.diagnose._certainty import Figure
from jaxinit.diagnose._profile import exists
from jaxinit.diagnose._verdict import place
from jaxinit.records import Finding, Statistic

_FLOATS = ("float", "bfloat")


def _seen(kind: str, severity: str, what: str, sites: Sequence[str], remedy: str) -> Finding:
    """A finding that is seen, not estimated: its figure is the number of sites."""
    figure = ("number of sites", Figure(float(len(sites))))
    return finding(
        kind, severity, what, (sites[0], sites[-1]), figure, 0.0, 0.0, remedy, at.EXACT_SOURCE, least=0.0
    )


def _more(sites: Sequence[str]) -> str:
    return f" and {len(sites) - 1} more site{'s' * (len(sites) > 2)}" if len(sites) > 1 else ""


def not_finite(case: Case) -> list[Finding]:
    """The first site, in the direction of travel, with a value that is nan or infinite."""
    r = case.record
    for noun, log, fraction in (
        ("signal", r.log_second_moment, r.nonfinite_fraction),
        ("gradient", r.log_grad_second_moment, r.grad_nonfinite_fraction),
    ):
        bad = np.zeros(case.depth, bool)
        if log is not None and log.mean.size:
            # In a probed model a figure may not exist; elsewhere what is undefined was no number.
            undefined = np.full(log.mean.shape, bool(r.layout)) & (log.defined == 0)
            bad |= (~undefined & ~((log.max < np.inf) & ~np.isnan(log.mean))).any(axis=1)
        if fraction is not None and fraction.mean.size:
            bad |= np.nan_to_num(fraction.max) > 0.0
        if not bad.any():
            continue
        sites = [r.sites[i] for i in np.flatnonzero(bad)]
        first = sites[0] if noun == "signal" else sites[-1]
        share = (
            "" if fraction is None else f" ({100 * fraction.mean[r.sites.index(first)]:.3g} % of the inputs)"
        )
        text = (
            f"The {noun} is not finite: nan or infinite first at {place(first)}{share}, "
            f"and at {len(sites)} of {case.depth} sites."
        )
        before = _before(case, log, first, noun)
        if before is not None:
            text += (
                f" Before it all is of moderate size (rms {math.exp(before):.2g}), so an operation on the way does it: "
                "a log, a square root, a division, a power or a norm where it, or its derivative, does not exist."
            )
        remedy = (
            case.rescale
            if before is None
            else 'jax.config.update("jax_debug_nans", True)  # names the operation'
        )
        return [_seen(f"not_finite_{noun}", "error", text, sites, remedy)]
    return []


def _before(case: Case, log: Statistic | None, first: str, noun: str) -> float | None:
    """Log of the largest rms on the way to a site, if that explains no overflow there."""
    r = case.record
    i = r.sites.index(first)
    if log is None or not r.layout:
        return None
    way = log.max[:i] if noun == "signal" else log.max[i + 1 :]
    finite = way[np.isfinite(way)]
    if not finite.size:
        return None
    largest = 0.5 * float(finite.max())
    half = any(s.dtype == "float16" for s in r.layout)
    return largest if largest < at.MODERATE * (at.LOG_HALF if half else at.LOG_HUGE) else None


def float_range(case: Case) -> list[Finding]:
    """Sites at which the typical rms is outside the normal numbers of float32."""
    out = []
    for noun, stat in (
        ("signal", case.record.log_second_moment),
        ("gradient", case.record.log_grad_second_moment),
    ):
        if stat is None or not stat.mean.size:
            continue
        with np.errstate(invalid="ignore"):
            log = 0.5 * stat.mean.mean(axis=1)
        for kind, limit, sign in (("underflow", at.LOG_TINY, -1.0), ("overflow", at.LOG_HUGE, 1.0)):
            index = np.flatnonzero(np.isfinite(log) & (sign * log > sign * limit))
            if not index.size:
                continue
            first = case.record.sites[index[0] if noun == "signal" else index[-1]]
            worst = float((sign * log[index]).max()) * sign / math.log(10.0)
            becomes = "0" if kind == "underflow" else "infinite"
            text = (
                f"The {noun} leaves the range of float32 and bfloat16 at {place(first)}, so it becomes {becomes} "
                f"in a real network: its rms would reach 1e{worst:+.0f}."
            )
            figure = (f"log10 of the rms of the {noun}, extreme", Figure(worst))
            remedy, source = case.rescale, at.RANGE_SOURCE
            out.append(
                finding(kind, "error", text, (first,), figure, limit / math.log(10.0), 0.0, remedy, source)
            )
    return out


def silent(case: Case) -> list[Finding]:
    """Signals that are exactly 0: everywhere from a site on, only at the output, in a branch, in some networks."""
    r, out = case.record, []
    none = case.lasting(case.silent)
    sites = [r.sites[i] for i in np.flatnonzero(none)]
    if sites:
        first = r.sites.index(sites[0])
        where = f"The signal is exactly 0 at {place(sites[0])}{_more(sites)}"
        count = f"{len(sites)} site{'s' * (len(sites) > 1)}"
        meant = (
            "Right if it is meant to start at zero (a zero-initialized head or end of a branch); what feeds only it "
            "gets no gradient in the first step."
        )
        if none[first:].all() and first < max(case.depth - 1, 1):
            text = f"The signal is exactly 0 from {place(sites[0])} on ({count}), in every network"
            off = _off(case, first)
            if off is None:
                out.append(_seen("zero_signal", "error", f"{text}.", sites, case.rescale))
            else:
                text += f": all units of {place(off)} are off on every input."
                remedy = f"bias_init=ji.zeros(), kernel_init={case.gain}"
                out.append(_seen("zero_signal", "error", text, [off, *sites], remedy))
        elif len(sites) == 1 and none[-1]:
            out.append(_seen("zero_output", "note", f"{where}, the last site. {meant}", sites, ""))
        else:
            out.append(_seen("silent_branch", "note", f"{where}, but not after. {meant}", sites, ""))
    some = [r.sites[i] for i in np.flatnonzero(_sometimes_zero(r.log_second_moment))]
    if some:
        text = (
            f"Some networks die: in at least one of {r.count} the signal is exactly 0 at {place(some[0])}"
            f"{_more(some)}, in others it is not. All units of a layer were off at once: widen the narrowest."
        )
        out.append(_seen("dying", "warning", text, some, case.rescale))
    return out


def _off(case: Case, first: int) -> str | None:
    """The last site with a nonlinearity before the first silent one, if its units are off in every network."""
    stat = case.record.dead_fraction
    if stat is None or not stat.mean.size:
        return None
    before = np.flatnonzero(np.isfinite(stat.mean[:first]))
    return case.record.sites[before[-1]] if before.size and stat.min[before[-1]] == 1.0 else None


def _sometimes_zero(stat: Statistic | None) -> np.ndarray:
    if stat is None or not stat.mean.size:
        return np.zeros(0, bool)
    return np.asarray((np.isneginf(stat.mean) & np.isfinite(stat.max)).any(axis=1))


def no_gradient(case: Case) -> list[Finding]:
    """Sites with a signal that no gradient reaches, where no silent layer explains it."""
    r, stat = case.record, case.record.log_grad_second_moment
    if stat is None or not stat.mean.size or case.lasting(case.silent).any():
        return []
    missing = always_zero(stat, case.depth)
    if r.layout:
        missing = missing | ~exists(stat)
        missing &= np.array(
            [s.branch is None and s.dtype.startswith(_FLOATS) and s.role != "input" for s in r.layout]
        )
    missing = case.lasting(missing)
    sites = [r.sites[i] for i in np.flatnonzero(missing)]
    if not sites:
        return []
    text = (
        f"No gradient reaches {place(sites[-1])}{_more(sites)}: dL/dz is exactly 0 there, or the loss does not "
        "depend on it (all units off, a stop_gradient, an unused output)."
    )
    # What is cut off may be meant so (a frozen part, a spare head), while the rest of the model is trained.
    severity = "error" if missing[0] and (not r.layout or missing.sum() > case.depth / 2) else "warning"
    remedy = f"# no initializer mends it: {sites[-1]} has to reach the loss" if r.layout else case.rescale
    return [_seen("no_gradient", severity, text, sites, remedy)]
