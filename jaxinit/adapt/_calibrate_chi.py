"""Partial Jacobians of one: scales with which each layer alone keeps the length of a random gradient."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxinit.adapt._calibrate_case import Case, Outcome
from jaxinit.adapt._lsuv import dependence_of, lsuv, run
from jaxinit.probe import Dependence

__all__ = ["partial_jacobians"]

_MEETS = (
    "set by its second moment: its input comes from several layers or goes to several, and a gradient that passes "
    "beside it cannot be scaled here"
)
_FIRST = "set by its second moment: no layer before it to keep the gradient to"


def partial_jacobians(case: Case) -> Outcome:
    """chi_1 = 1 for every layer: |dz_l/dz_p|_F^2 / n_l = 1, p the layer before l, n_l the units of l.

    Then gradients keep the sum of their squares from layer to layer (Doshi, He & Gromov 2023 call chi_1 the averaged
    partial Jacobian norm of one layer), if they are random: the loss's own gradient follows directions that all layers
    share, and may drift. First the signal is put in order; then each scale is set in the order of
    execution: with W_l scaled by s, chi_1 of l grows as s^2, while the layers before l fix phi'(z_p). The norm is
    estimated by one vector of signs an example, to about sqrt(2 / (units * examples)).
    """
    known = dependence_of(case)
    before = layer_before(known)
    ruled = (before >= 0) & case.movable
    drawn = run(dataclasses.replace(case, targets=np.full(len(ruled), np.nan)), known, before)
    signal = lsuv(case)
    targets = np.where(ruled, 1.0, case.targets)
    # A ratio does not see the scales above that its layer is proportional to.
    own = np.diag(np.diagonal(known.degrees))
    again = dataclasses.replace(case, leaves=tuple(signal.leaves), targets=targets)
    alone = known._replace(degrees=np.where(ruled[:, None], own, known.degrees))
    found = run(again, alone, np.where(ruled, before, -1))
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
    if ruled and status == "not converged":
        return status, f"chi_1 is {found.after[n]:.3g} after {found.iterations[n]} passes"
    if ruled or status != "converged":
        return status, why
    return status, _MEETS if known.above[n].any() else _FIRST


def _ends(found: Outcome, before: np.ndarray, ruled: np.ndarray) -> dict[str, float]:
    """What becomes of signal and gradient along the longest stretch of layers that the rule holds for."""
    if not ruled.any() or found.seen is None:
        return {}
    begin, length = np.arange(len(ruled)), np.zeros(len(ruled), int)
    for n in np.flatnonzero(ruled):
        begin[n], length[n] = begin[before[n]], length[before[n]] + 1
    last = int(np.argmax(length))
    first, links, link = int(begin[last]), [], last
    while link != first:
        links.append(float(found.after[link]))
        link = int(before[link])
    square = found.seen.log_second_moment
    return {
        "layers in a row": float(length[last]),
        "signal last/first": float(np.exp(square[last] - square[first])),
        "product of chi_1": float(np.prod(links)),
    }
