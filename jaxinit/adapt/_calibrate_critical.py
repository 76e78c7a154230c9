"""Criticality: scales with which the gradient keeps its length from each layer to the one before it."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxinit.adapt._calibrate_case import Case, Outcome
from jaxinit.adapt._lsuv import dependence_of, lsuv, run
from jaxinit.probe import Dependence

__all__ = ["critical_scales"]

#: Random cotangents over which gradients are averaged, where no loss is given.
COTANGENTS = 8

_MEETS = (
    "set by its second moment: its input comes from several layers or goes to several, and a gradient that passes "
    "beside it cannot be scaled here"
)
_FIRST = "set by its second moment: no layer before it to keep the gradient to"


def critical_scales(case: Case) -> Outcome:
    """chi_1 = 1 for every layer: |dL/dz_p|^2 = |dL/dz_l|^2, p the layer before l, both summed over units.

    First the signal is put in order, so that gradients exist; then each scale is set so that chi_1 = |dL/dz_p|^2 /
    |dL/dz_l|^2 is 1, in the order of execution: with W_l scaled by s it grows as s^2, while the layers before l fix
    phi'(z_p).
    """
    known = dependence_of(case)
    before = layer_before(known)
    ruled = (before >= 0) & case.movable
    drawn = run(dataclasses.replace(case, own=tuple(() for _ in case.own)), known, before, _cotangents(case))
    signal = lsuv(case)
    targets = np.where(ruled, 1.0, case.targets)
    # What is proportional to a scale above has a gradient ratio that does not see it; its own scale is squared.
    own = np.diag(np.diagonal(known.degrees))
    again = dataclasses.replace(case, leaves=tuple(signal.leaves), targets=targets)
    degrees = np.where(ruled[:, None], own, known.degrees)
    found = run(again, known._replace(degrees=degrees), np.where(ruled, before, -1), _cotangents(case))
    return dataclasses.replace(
        found,
        factors=found.factors * signal.factors,
        shifts=signal.shifts,
        before=np.where(ruled, drawn.before, signal.before),
        iterations=found.iterations + signal.iterations,
        status=tuple(_said(case, n, found, known, bool(ruled[n])) for n in range(len(ruled))),
        evaluations=drawn.evaluations + signal.evaluations + found.evaluations,
        statistic="chi_1 (second moment where the status says so)",
        targets=targets,
        figures=_ends(found, before, ruled),
    )


def _cotangents(case: Case) -> int:
    return COTANGENTS if case.products.random else 1


def layer_before(known: Dependence) -> np.ndarray:
    """By site, the one site whose value it is given, if that one goes nowhere else; -1 where there is none."""
    readers = known.above.sum(axis=0)
    out = np.full(known.degrees.shape[0], -1)
    for n, above in enumerate(known.above[:-1]):
        (sites,) = np.nonzero(above)
        if len(sites) == 1 and readers[sites[0]] == 1 and sites[0] < n:
            out[n] = sites[0]
    return out


def _said(case: Case, n: int, found: Outcome, known: Dependence, ruled: bool) -> tuple[str, str]:
    status, why = found.status[n]
    if ruled or status != "converged":
        return status, why.replace(case.statistic, "chi_1") if ruled else why
    return status, _MEETS if known.above[n].any() else _FIRST


def _ends(found: Outcome, before: np.ndarray, ruled: np.ndarray) -> dict[str, float]:
    """What becomes of signal and gradient from the first layer that the rule holds for to the last."""
    (sites,) = np.nonzero(ruled)
    if not len(sites) or found.seen is None or found.seen.log_gradient is None:
        return {}
    first, last = before[sites[0]], sites[-1]
    square, gradient = found.seen.log_second_moment, found.seen.log_gradient
    return {
        "signal last/first": float(np.exp(square[last] - square[first])),
        "gradient first/last": float(np.exp(gradient[first] - gradient[last])),
    }
