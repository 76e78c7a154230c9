"""Units that are off, saturated, or copies of each other."""

from __future__ import annotations

import math
import re

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import Case, finding, most_severe
from jaxinit.diagnose._certainty import Figure, binomial_tail, how_sure, more_seeds
from jaxinit.diagnose._profile import FEW, seen_units
from jaxinit.diagnose._verdict import place
from jaxinit.records import Finding

#: Of a layer in a stack: "layers[3]/fc/kernel".
_INDEX = re.compile(r"\[\d+\]")
_WORDS = {
    "dead_fraction": ("dead_units", "are off on every input: they pass no gradient"),
    "saturated_fraction": (
        "saturated_units",
        "sit where the nonlinearity is flat (slope below 1 % of its largest)",
    ),
}


def flat_units(case: Case) -> list[Finding]:
    """Dead units, else saturated ones, at the worst site; every site is tried, so p-values are times their number.

    Where few units were seen the share is tested as their count too: four of four is no proof of three quarters.

    Saturated are units on the flat side of their nonlinearity whose value is not 0: zeros are a ReLU's way to be off,
    and of these a half is usual.
    """
    out = []
    for statistic, (kind, words) in _WORDS.items():
        stat = getattr(case.record, statistic)
        if stat is None or not np.isfinite(stat.mean).any():
            continue
        n, zeros = stat.count, case.record.zero_fraction
        shares, errors, dof = stat.mean, np.nan_to_num(stat.stderr), n - 1 if n > 1 else math.inf
        least, source = at.DEAD_SHARE, at.DEAD_SOURCE
        if kind == "saturated_units" and zeros is not None and zeros.mean.shape == shares.shape:
            least, source = at.SATURATED_SHARE, at.SATURATED_SOURCE
            shares = np.maximum(shares - zeros.mean, 0.0)
            errors = errors + np.nan_to_num(zeros.stderr)
        if 1 < n < FEW:
            # Few seeds: the sites' errors are pooled, since one by one they are known badly.
            errors, dof = (
                np.full(errors.shape, math.sqrt(float(np.mean(np.square(errors))))),
                (n - 1) * len(errors),
            )
        basis = "exact" if n == 0 else f"{n} seed{'s' * (n > 1)}, {len(shares)} sites tried"
        figures = [
            Figure(float(m), max(float(s), float(e)), dof, basis)
            for m, s, e in zip(shares, errors, _counting(case, shares, n), strict=True)
        ]
        counts = seen_units(case.record, n)

        def p_value(
            i: int, threshold: float, figures: list[Figure] = figures, counts: np.ndarray = counts
        ) -> float:
            f = figures[i]
            by_chance = binomial_tail(math.floor(f.value * counts[i] + 0.5), int(counts[i]), threshold)
            return max(f.p_above(threshold), by_chance) * len(figures)

        # A silent site is told as such, and so is one that the loss does not depend on (a stop_gradient is flat).
        heard = ~case.silent & case.reached & np.isfinite(shares)
        p_values = [p_value(i, least) if heard[i] else 1.0 for i in range(len(figures))]
        severity = how_sure(min(p_values))
        # One half is what healthy networks may reach: an estimate a little beyond it says nothing.
        if severity is None or (severity, kind) == ("likely", "saturated_units"):
            continue
        worst = max(
            (i for i, p in enumerate(p_values) if how_sure(p) == severity),
            key=lambda i: (figures[i].value, -figures[i].stderr),
        )
        figure = figures[worst]
        error = p_value(worst, at.DEAD_ERROR_SHARE) < at.SURE
        threshold = at.DEAD_ERROR_SHARE if error else least
        count = sum(how_sure(p) == severity for p in p_values)
        text = (
            f"{100 * figure.value:.3g} % of the units of {place(case.record.sites[worst])} {words}"
            + (f"; more than {100 * least:.0f} % at {count} sites" if count > 1 else "")
            + "."
            + more_seeds(severity, p_values[worst], n)
        )
        out.append(
            finding(
                kind,
                "error" if error else severity,
                text,
                (case.record.sites[worst],),
                ("share of units", figure),
                threshold,
                p_value(worst, threshold),
                f"bias_init=ji.zeros(), kernel_init={case.gain}",
                source,
                least=0.0,
                most=1.0,
                sites=float(count),
            )
        )
    return most_severe(out)


def _counting(case: Case, share: np.ndarray, seeds: int) -> np.ndarray:
    """Standard error of a share of independent units: the least there is, and all that one seed tells."""
    seen = seen_units(case.record, seeds)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(share * (1.0 - share) / np.where(seen, seen, np.inf)))


def identical_units(case: Case) -> list[Finding]:
    """Sites whose units are copies: their kernel has equal entries, or the mean over units is all there is of them."""
    r = case.record
    constant = _constant_kernels(case)
    same = constant | _without_spread(case)
    if not same.any():
        return []
    index = np.flatnonzero(same)
    everywhere = (
        not r.layout or len(index) >= sum(bool(s.parameters) and s.role != "input" for s in r.layout) / 2
    )
    more = f" and {len(index) - 1} more site{'s' * (len(index) > 2)}" * (len(index) > 1)
    end = (
        "each layer one unit wide, and training keeps it so"
        if everywhere
        else "a layer one unit wide at the start"
    )
    text = (
        f"The units of {place(r.sites[int(index[0])])}{more} are copies of each other: a kernel of equal entries makes "
        f"{end}."
    )
    return [
        finding(
            "identical_units",
            "error" if everywhere else "warning",
            text,
            (r.sites[int(index[0])], r.sites[int(index[-1])]),
            ("number of sites", Figure(float(len(index)))),
            0.0,
            0.0,
            case.rescale,
            at.IDENTICAL_SOURCE,
            least=0.0,
        )
    ]


def _constant_kernels(case: Case) -> np.ndarray:
    """Sites of a model whose matrix is drawn with equal entries, and is not zero."""
    r, out = case.record, np.zeros(case.depth, bool)
    equal = set(r.config.get("equal_entries") or ())
    if not equal or r.parameters is None:
        return out
    shapes, norms = dict(zip(r.parameters.names, r.parameters.shapes, strict=True)), r.parameters.norm.mean
    for i, site in enumerate(r.layout):
        kernel = next(iter(site.parameters), "")
        if site.role != "input" and _INDEX.sub("", kernel) in equal and len(shapes[kernel]) > 1:
            out[i] = norms[r.parameters.index(kernel)] > 0.0 and site.units > 1
    return out


def _without_spread(case: Case) -> np.ndarray:
    """Sites where the square of the mean over units makes up the second moment, in the network of largest signal."""
    r = case.record
    mean, second = r.mean, r.second_moment
    if mean is None or second is None or not r.count or r.pooled > 1:
        return np.zeros(case.depth, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        square = np.maximum(np.square(mean.max), np.square(mean.min))
        share = np.where(second.max > 0.0, 1.0 - square / second.max, np.nan)
    return np.asarray(_several_units(case) & (np.nan_to_num(share, nan=1.0) < at.IDENTICAL).all(axis=1))


def _several_units(case: Case) -> np.ndarray:
    """Sites known to have more than a few units, of which a mean can be taken."""
    if case.record.layout:
        return np.array([s.units >= 8 for s in case.record.layout])
    widths = case.record.config.get("widths")
    if widths is None or len(widths) != case.depth:
        return np.zeros(case.depth, bool)
    return np.asarray(widths) >= 8
