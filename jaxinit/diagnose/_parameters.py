"""Parameters that the first step of training would leave alone, or move by far too much."""

from __future__ import annotations

import itertools
import math

import numpy as np

from jaxinit.diagnose import thresholds as at
from jaxinit.diagnose._case import TABLES, Case, finding, scatter
from jaxinit.diagnose._certainty import Figure, how_sure, more_seeds
from jaxinit.diagnose._gains import apart, matrices
from jaxinit.records import Finding, ParameterStatistics
from jaxinit.records._tables import format_log

_DECADE = 1.0 / math.log(10.0)
_LEAST, _SHOWN = 3, 3


def without_gradient(case: Case) -> list[Finding]:
    """Parameters whose gradient is exactly 0 in every network, where no other fault explains it.

    A note where something starts at zero on purpose: a scale or a matrix that is 0 and has a gradient, or a silent
    site, passes none back in the first step only.
    """
    p = case.record.parameters
    if p is None or p.gradient_norm is None:
        return []
    untaken = {name for s in case.record.layout if s.branch is not None for name in s.parameters}
    none = (p.gradient_norm.defined > 0) & (p.gradient_norm.max == 0.0)
    names = [name for name, zero in zip(p.names, none, strict=True) if zero and name not in untaken]
    if not names:
        return []
    zeros = [
        name
        for name, norm, gradient in zip(p.names, p.norm.max, p.gradient_norm.max, strict=True)
        if norm == 0.0 and gradient > 0.0 and not name.endswith("bias")
    ]
    starts = bool(zeros) or bool(case.silent.any())
    end = (
        f"what starts at zero passes no gradient back in the first step{_because(zeros)}."
        if starts
        else "the loss does not depend on them. They keep their initial values (weight decay aside): take them out, or "
        "connect what they feed."
    )
    text = f"No gradient for {_listed(names)}: {end}"
    return [
        finding(
            "zero_start" if starts else "unused_parameter", "note" if starts else "warning", text, _ends(names),
            ("number of parameters", Figure(float(len(names)))), 0.0, 0.0,
            "" if starts else f"# no initializer mends it: {names[0]} has to reach the loss", at.EXACT_SOURCE,
            least=0.0,
        )
    ]  # fmt: skip


def stuck(case: Case) -> list[Finding]:
    """Two matrices one behind the other that are both exactly 0: the gradient of each has the other as a factor.

    One alone is a start at zero, and gets a gradient. So it is with gains, of two norms of one branch.
    """
    r, p = case.record, case.record.parameters
    if p is None or p.gradient_norm is None:
        return []
    zero = (p.norm.max == 0.0) & (p.gradient_norm.defined > 0) & (p.gradient_norm.max == 0.0)
    rows = {name: i for i, name in enumerate(p.names) if len(p.shapes[i]) > 1}
    entered = [(s.name, rows[s.parameters[0]]) for s in r.layout if s.parameters and s.parameters[0] in rows]
    pairs = [
        (a[0], b[0]) for a, b in itertools.pairwise(entered) if a[1] != b[1] and zero[a[1]] and zero[b[1]]
    ]
    if not pairs:
        return _stuck_gains(case, p, zero)
    more = f" (and {len(pairs) - 1} more such pair{'s' * (len(pairs) > 2)})" * (len(pairs) > 1)
    text = (
        f"{pairs[0][0]} and {pairs[0][1]}, one behind the other, both start at exactly 0{more}: the gradient of each "
        "has the other as a factor, so neither leaves 0. Zeros belong in one layer of a branch only, the last."
    )
    return [
        finding(
            "stuck_at_zero", "warning", text, (pairs[0][0], pairs[-1][1]),
            ("number of pairs", Figure(float(len(pairs)))), 0.0, 0.0, case.rescale, at.EXACT_SOURCE, least=0.0,
        )
    ]  # fmt: skip


def _stuck_gains(case: Case, p: ParameterStatistics, zero: np.ndarray) -> list[Finding]:
    """Gains that are all 0 and get no gradient, where no zero elsewhere does that would let it through after a step."""
    assert p.gradient_norm is not None  # `stuck` has looked at it
    waits = (p.norm.max == 0.0) & (p.gradient_norm.max > 0.0)
    free = [not name.endswith("bias") for name in p.names]
    names = [p.names[i] for i in np.flatnonzero(zero & free & ~matrices(case))]
    if len(names) < 2 or (waits & free).any():
        return []
    text = (
        f"The gains {_listed(names)} start at exactly 0 and get no gradient: of two in one branch each has the other "
        "as a factor, so neither leaves 0. Zeros belong in one gain of a branch only, the last."
    )
    return [
        finding(
            "stuck_at_zero", "warning", text, _ends(names), ("number of gains", Figure(float(len(names)))), 0.0, 0.0,
            "scale_init=ji.ones()  # of all norms of a branch but the last", at.EXACT_SOURCE, least=0.0,
        )
    ]  # fmt: skip


def steps(case: Case) -> list[Finding]:
    """Matrices whose first step is as long as they are, else the one whose relative step is furthest from the others'.

    Tables of embeddings are told of only if their step is too long: of each batch they move a few rows.
    """
    p = case.record.parameters
    if p is None or p.update_ratio is None:
        return []
    stat, tables = p.update_ratio, _tables(case, p)
    with np.errstate(invalid="ignore", divide="ignore"):
        log, error = np.log(stat.mean), np.nan_to_num(stat.stderr / stat.mean)
    judged = matrices(case) & np.isfinite(log)
    if not judged.any():
        return []
    dof = stat.count - 1 if stat.count > 1 else math.inf
    figures = {
        int(i): Figure(float(log[i]), float(error[i]), dof, case.basis).scaled(_DECADE)
        for i in np.flatnonzero(judged)
    }
    long = {i: f.p_above(math.log10(at.STEP_RATIO)) * len(figures) for i, f in figures.items()}
    far = sorted((i for i, sure in long.items() if sure < at.SURE), key=lambda i: -figures[i].value)
    if far:
        worst = far[0]
        text = (
            f"The optimizer's first step is longer than the parameter for {_listed([p.names[i] for i in far])}: "
            f"{format_log(float(log[worst]))} times its norm. What was drawn there is replaced at once."
        )
        return [_finding(case, p.names[worst], text, figures[worst], math.log10(at.STEP_RATIO), long[worst])]
    index = [i for i in figures if not tables[i]]
    if len(index) < _LEAST:
        return []
    names = [p.names[i] for i in index]
    nearer, usual = apart(case, names, [(name,) for name in names], log[index])
    n = int(np.argmax(np.abs(nearer)))
    worst, middle, away = index[n], _DECADE * float(usual[n]), _DECADE * float(nearer[n])
    size = Figure(abs(away), figures[worst].stderr, dof, case.basis)
    if stat.count == 1:
        size = Figure(abs(away), _DECADE * scatter(nearer), len(index) - 1, case.basis)
    p_value = size.p_above(math.log10(at.IMBALANCE)) * len(index)
    severity = how_sure(p_value)
    if severity is None:
        return []
    text = (
        f"{p.names[worst]} would be moved by {format_log(float(log[worst]))} of its norm in the optimizer's first "
        f"step, {10 ** abs(away):.3g} times {'more' if away > 0 else 'less'} than the median of its like "
        f"({10**middle:.3g}): its scale is out of step with the others'."
    )
    return [_finding(case, p.names[worst], text, size, math.log10(at.IMBALANCE), p_value, severity)]


def _finding(
    case: Case,
    name: str,
    text: str,
    figure: Figure,
    threshold: float,
    p_value: float,
    severity: str = "warning",
) -> Finding:
    text += more_seeds(severity, p_value, case.record.count)
    return finding(
        "update_ratio", severity, text, (name,), ("decades of the relative first step", figure), threshold, p_value,
        case.redraw(name), at.STEP_RATIO_SOURCE,
    )  # fmt: skip


def _tables(case: Case, p: ParameterStatistics) -> list[bool]:
    """Which parameters are tables that are looked up."""
    looked_up = {s.parameters[0] for s in case.record.layout if s.parameters and s.kind in TABLES}
    return [name in looked_up or name.rsplit("/", 1)[-1] in TABLES for name in p.names]


def _ends(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((names[0], names[-1])))


def _listed(names: list[str]) -> str:
    left = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {left} more" if left > 0 else "")


def _because(zeros: list[str]) -> str:
    return f" ({_listed(zeros)})" if zeros else ""
