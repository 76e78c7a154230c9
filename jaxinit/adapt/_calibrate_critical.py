"""Criticality as it is measured: gradients of one length from the first layer to the last, signals within a band."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.adapt._balance import BAND, Balance, Start, balance
from jaxinit.adapt._calibrate_case import Case, Outcome, ownership
from jaxinit.adapt._calibrate_chi import partial_jacobians
from jaxinit.adapt._lsuv import dependence_of, lsuv
from jaxinit.probe import Dependence

__all__ = ["critical_scales"]

#: Lengths are level where the largest is at most this times the smallest (of their squares).
FACTOR = 2.0
#: Second moments to begin with where those asked for lead nowhere, as a share of these.
SMALLER = 8.0


def critical_scales(case: Case) -> Outcome:
    """Scale so that what is measured backward is level: the gradient, or a weight's update relative to the weight."""
    kind = case.options["level"]
    if kind == "chi_1":
        return partial_jacobians(case)
    updates = kind == "update_ratio"
    signal = lsuv(case)
    known = dependence_of(case)
    moving = _moving(case, signal)
    if not len(moving):
        return dataclasses.replace(signal, statistic=_NAMES[updates], targets=np.full(len(case.own), np.nan))
    compared = moving if updates else ends_and_necks(known, moving)
    start = Start(
        case.leaves, case.state, jax.tree.map(lambda *v: jnp.stack(v), *case.batches), case.key,
        tuple(ownership(case.products, case.own)), moving.astype(np.int32), compared.astype(np.int32),
        np.log(signal.factors).astype(np.float32), _of(np.log(case.targets), moving),
    )  # fmt: skip
    searches = [balance(case.products, updates, start)]
    evaluations = signal.evaluations
    if not _level(searches[0]) and _grows(searches[0], compared):
        # From where the network is chaotic derivatives do not lead out: again, from smaller signals.
        small = lsuv(dataclasses.replace(case, targets=case.targets / SMALLER))
        evaluations += small.evaluations
        scale = np.log(small.factors).astype(np.float32)
        searches.append(balance(case.products, updates, start._replace(scale=scale)))
    found = min(searches, key=lambda each: float(each.spread))
    drawn, begun = searches[0].drawn, searches[0].begun
    evaluations += sum(int(each.evaluations) for each in searches)
    leaves = found.leaves
    found = jax.device_get(found._replace(leaves=[], drawn=drawn, begun=begun))
    told = _Told(case, signal, found, moving, compared, updates)
    return Outcome(
        np.exp(np.asarray(found.scale, np.float64)), signal.shifts, told.relative(found.drawn),
        told.relative(found.found), signal.iterations + np.where(told.moves, int(found.rounds), 0),
        tuple(told.status(n) for n in range(len(case.own))), evaluations, statistic=_NAMES[updates],
        targets=np.where(told.compares, 1.0, np.nan), figures=told.figures, leaves=leaves,
    )  # fmt: skip


_NAMES = (
    "square of the gradient's length, relative to the last layer",
    "square of update / weight, relative to the last",
)


def _of(values: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """nan elsewhere: a shared parameter's later sites follow the first."""
    out = np.full(len(values), np.nan, np.float32)
    out[sites] = values[sites]
    return out


def _level(found: Balance) -> bool:
    return float(found.spread) <= math.log(FACTOR) / 2


def _grows(found: Balance, compared: np.ndarray) -> bool:
    """Whether, at the start, gradients grow on their way back."""
    first, last = np.asarray(found.begun[1], np.float64)[compared[[0, -1]]]
    return bool(first - last > math.log(FACTOR))


def _moving(case: Case, signal: Outcome) -> np.ndarray:
    """Sites whose scale does something, by index."""
    alive = np.array([status in ("converged", "not converged") for status, _ in signal.status])
    return np.flatnonzero(case.movable & ~np.isnan(case.targets) & alive & np.isfinite(signal.after))


def ends_and_necks(known: Dependence, moving: np.ndarray) -> np.ndarray:
    """Which sites' gradients should be alike: the first and the last that move, and those between them that everything
    passes through on its way from the inputs to the outputs. Inside branches gradients are what the branch makes of
    them."""
    return np.array([n for n in moving if n in (moving[0], moving[-1]) or not _passable(known.above, n)])


def _passable(above: np.ndarray, without: int) -> bool:
    """Whether a way leads from the inputs to the outputs beside this product."""
    outputs = above.shape[1]
    todo = [n for n in range(outputs) if n != without and not above[n].any()]
    seen = {without, *todo}
    while todo:
        for n in np.flatnonzero(above[:, todo.pop()]).tolist():
            if n == outputs:
                return True
            if n not in seen:
                seen.add(n)
                todo.append(n)
    return False


class _Told:
    """A search in words."""

    def __init__(
        self,
        case: Case,
        signal: Outcome,
        found: Balance,
        moving: np.ndarray,
        compared: np.ndarray,
        updates: bool,
    ) -> None:
        self.case, self.signal, self.found, self.compared = case, signal, found, compared
        self.what = ("gradient", "update / weight")[updates]
        self.moves, self.compares = (np.isin(np.arange(len(case.own)), which) for which in (moving, compared))

    def relative(self, seen: Any) -> np.ndarray:
        """R, relative to the last compared site."""
        level = np.asarray(seen[1], np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.exp(level - level[self.compared[-1]])

    @functools.cached_property
    def figures(self) -> dict[str, float]:
        first, last = self.compared[0], self.compared[-1]
        square = np.exp(np.asarray(self.found.found[0], np.float64)[self.moves])
        ends = {
            f"{self.what} first/last, {when}": float(
                np.exp(np.float64(seen[1][first]) - np.float64(seen[1][last]))
            )
            for when, seen in (
                ("as drawn", self.found.drawn),
                ("unit variance", self.found.begun),
                ("now", self.found.found),
            )
        }
        return ends | {
            "second moment, least": float(square.min()),
            "second moment, largest": float(square.max()),
        }

    def status(self, n: int) -> tuple[str, str]:
        status, why = self.signal.status[n]
        if not self.moves[n]:
            return status, why
        square, target = float(np.exp(self.found.found[0][n])), float(self.case.targets[n])
        away = f"second moment {square:.3g} for {target:.3g}"
        note = "" if abs(square / target - 1) <= self.case.tolerance else away
        if not self.compares[n]:
            return (
                ("converged", note)
                if math.isfinite(square)
                else ("not converged", "its values are not finite")
            )
        level = self.found.found[1]
        if not np.isfinite(level[n]):
            return "dead", "no gradient reaches it"
        bounds = (
            f"no scales were found that level it within a factor {BAND:.0f} of the second moments; {away}"
        )
        off = np.append(np.diff(level[self.compared]), 0.0)
        at, jumps = int(np.searchsorted(self.compared, n)), np.abs(off) > math.log(FACTOR)
        if at and jumps[at - 1]:
            name = self.case.products.products[self.compared[at - 1]].name
            return (
                "out of reach",
                f"the {self.what} at {name} is {math.exp(-off[at - 1]):.3g} of that here; {bounds}",
            )
        end = at + int(np.argmax(np.append(jumps[at:], True)))  # the last before the next jump
        drift = float(level[self.compared[min(end, len(off) - 1)]] - level[n])
        if abs(drift) <= math.log(FACTOR):
            return "converged", note
        name = self.case.products.products[self.compared[min(end, len(off) - 1)]].name
        return "out of reach", f"the {self.what} is {math.exp(-drift):.3g} of that at {name}; {bounds}"
