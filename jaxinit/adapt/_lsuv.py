"""Layer-sequential calibration: a search that scales each site until its statistic is at its target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxinit.adapt._calibrate_case import Case, Outcome
from jaxinit.adapt._front import Front
from jaxinit.probe import Dependence, Figures, Products

__all__ = ["dependence_of", "lsuv", "run"]

#: A scale that is multiplied by e^step changes the log of the statistic by less than this times the step: it has none.
_NO_EFFECT = 0.05
_AS_IT_WAS = "its scale is as it was"
_UNMOVED = "the scale does not change it: its input is 0 and it shows its bias, or its kernel is normalized"
#: Steps of ln(scale) are at most this large; where the signal overflows they are this one.
_LARGEST, _RETREAT = 15.0, -7.0
#: Values whose logs of squares are within this are far from where float32 ends, and may be multiplied.
_SAFE = 60.0
#: After all stages.
_LAST = 1 << 30


class Known(NamedTuple):
    """What a search is about; arrays by site. `targets` are natural logarithms, nan where nothing is asked."""

    degrees: np.ndarray
    stage: np.ndarray
    movable: np.ndarray
    shiftable: np.ndarray
    targets: np.ndarray
    tolerance: float
    most: int
    variance: bool


class Search:
    """Where a search stands; arrays by site. `statistic` is a natural logarithm, nan before a site has been reached,
    `first` what it was then; `step` the last change of `scale` whose effect has not been seen."""

    def __init__(self, slope: np.ndarray) -> None:
        count = len(slope)
        self.scale, self.shift, self.step, self.slope = (*np.zeros((3, count)), slope)
        self.passes, self.fixed = np.zeros(count, int), np.zeros(count, bool)
        self.first, self.statistic = np.full((2, count), np.nan)

    def see(self, known: Known, statistic: np.ndarray, here: np.ndarray) -> np.ndarray:
        """Note what the last steps of the sites `here` did, beyond the known effect of the others' steps; which did
        nothing, and were taken back."""
        step = np.where(here, self.step, 0.0)
        moved = (step != 0) & np.isfinite(statistic) & np.isfinite(self.statistic)
        own = statistic - self.statistic - 2 * known.degrees @ step
        found = np.divide(own, step, out=np.zeros_like(own), where=moved)
        told = moved & (np.abs(step) > 0.05)
        self.slope = np.where(told, np.clip(found, 0.2, 8.0), self.slope)
        idle = told & (np.abs(found) < _NO_EFFECT)
        self.scale = np.where(idle, 0.0, self.scale)
        self.fixed = self.fixed | idle
        new = here & np.isnan(self.first)
        self.first = np.where(new, statistic - 2 * known.degrees @ self.scale, self.first)
        self.statistic = np.where(here, statistic, self.statistic)
        self.step = np.where(here, 0.0, self.step)
        return idle

    def move(self, step: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Which sites moved."""
        change = (step != 0) | (shift != 0)
        self.scale, self.shift = self.scale + step, self.shift + shift
        self.step = np.where(change, step, self.step)
        self.passes = self.passes + change
        return change

    def follow(self, site: int, change: float) -> None:
        """The step of a site did this to its statistic: as good as seen."""
        self.statistic[site] += change
        self.step[site] = 0.0


def statistic_of(
    products: Products, figures: Figures, variance: bool, before: np.ndarray | None
) -> np.ndarray:
    """The log of each site's statistic: its second moment or variance; or, where `before` names a site p, chi_1 =
    |J|_F^2 / n of the site's partial Jacobian with respect to p, n the number of its own entries."""
    log = figures.log_second_moment
    if variance:
        share = np.square(figures.mean) * np.exp(-log)
        log = np.where(share < 1, log + np.log1p(-np.minimum(share, 1)), -np.inf)
    if before is None:
        return np.asarray(log)
    return np.where(before >= 0, figures.log_gradient[before] - products.log_sizes, log)


def _plan(known: Known, now: Search, mean: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steps of ln(scale), and the shifts, that one evaluation allows, of the sites `here`.

    Those sites move that belong to the first stage in which any is off: nothing that bends their statistic moves with
    them, and what is known of one another's effect is solved for.
    """
    statistic = now.statistic
    off = known.targets - statistic
    finite, overflow = np.isfinite(off), np.isneginf(off)
    overflow = overflow & (np.cumsum(overflow) == 1)  # the first; the others may be its doing
    free = here & known.movable & ~now.fixed & (now.passes < known.most)
    want = free & (overflow | (finite & (np.abs(np.expm1(off)) > known.tolerance)))
    stage = np.min(known.stage, where=want, initial=_LAST)
    moving = free & (finite | overflow) & (known.stage == stage)
    size = np.where(overflow, _RETREAT * now.slope, np.where(moving & finite, off, 0))
    together = moving[:, None] & moving[None, :]
    system = 2 * known.degrees * together + np.diag(np.where(moving, now.slope, 1))
    step = np.linalg.solve(system, size)
    slight = np.abs(np.expm1(step * now.slope)) <= known.tolerance / 10
    step = np.where(moving & ~slight, np.clip(step, -_LARGEST, _LARGEST), 0)
    none = np.zeros_like(step)
    if not known.variance:
        return step, none
    # A bias is shifted once the scales up to it are right: the variance stays as it is.
    off_centre = here & known.shiftable & finite & (np.abs(mean) > known.tolerance * np.exp(statistic / 2))
    off_centre = off_centre & (now.passes < known.most) & (known.stage < stage)
    first = off_centre & (known.stage == np.min(known.stage, where=off_centre, initial=_LAST))
    return none if first.any() else step, np.where(first, -mean, 0)


def lsuv(case: Case) -> Outcome:
    """Scale every site, in the order of execution, until its statistic is at its target."""
    return run(case, dependence_of(case))


def dependence_of(case: Case) -> Dependence:
    """As the program says; what comes later in the program (loops) is left to the repetition of the search."""
    known = case.products.dependence(case.own, case.zero)
    if any(case.bias):  # shifted biases are of no degree in anything
        count = len(case.own)
        known = known._replace(degrees=np.eye(count), bends=np.ones((count, count), bool))
    return known._replace(degrees=np.tril(known.degrees), bends=np.tril(known.bends))


def run(case: Case, dependence: Dependence, before: np.ndarray | None = None) -> Outcome:
    """Search, and put the result into words.

    `before`: by site, the one from which the partial Jacobian is its statistic; -1 (or None for all) where its own
    moment is.
    """
    own = np.diagonal(dependence.degrees)
    movable = case.movable & ~np.isnan(case.targets)
    known = Known(
        degrees=dependence.degrees - np.diag(own), stage=stages(dependence, movable), movable=movable,
        shiftable=np.array([bool(layers) for layers in case.bias]), targets=np.log(case.targets),
        tolerance=case.tolerance, most=case.passes, variance=case.statistic == "variance",
    )  # fmt: skip
    front, now = Front(case, before is not None), Search(np.where(own > 0, 2 * own, 2.0))

    def read(figures: Figures) -> np.ndarray:
        return statistic_of(case.products, figures, known.variance, before)

    earlier = front.at[None, :] < front.at[:, None]
    if (dependence.bends & movable & earlier).any():  # afterwards it cannot be told what was there before
        with np.errstate(all="ignore"):
            now.first = read(front.all())
        front.begin()
    power = np.where(np.diagonal(dependence.bends), 0.0, own)
    block, figures = 0, None
    while block < len(front):
        front.run(block)
        here = front.at == block
        if here.any():
            figures = front.figures()
            with np.errstate(all="ignore"):
                idle = now.see(known, read(figures), here)
                step, shift = _plan(known, now, figures.mean, here)
            moved = now.move(step, shift) | idle
            if moved.any():
                in_place = front.scale(block, moved, now.scale, now.shift)
                if not in_place:
                    front.begin()
                    block = 0
                    continue
                if not _followed(front, known, now, block, moved, step, power):
                    continue
        front.leave(block)
        block += 1
    last = np.exp(now.statistic)
    return Outcome(
        np.exp(now.scale), now.shift, np.exp(now.first), last, now.passes,
        status_of(case, last, now.fixed, now.passes), front.evaluations, leaves=front.leaves, seen=figures,
    )  # fmt: skip


def _followed(
    front: Front,
    known: Known,
    now: Search,
    block: int,
    moved: np.ndarray,
    step: np.ndarray,
    power: np.ndarray,
) -> bool:
    """Whether the step need not be measured: the one site that moved is at its target, because its value, and what
    else the block passes on, is a power of its scale."""
    (site, *others) = np.flatnonzero(moved)
    change = 2 * power[site] * step[site]
    now_at, target = now.statistic[site], known.targets[site]
    if others or not power[site] or not abs(np.expm1(now_at + change - target)) <= known.tolerance:
        return False
    if max(abs(now_at), abs(target)) > _SAFE or not front.follow(block, int(site), float(step[site])):
        return False
    now.follow(int(site), float(change))
    return True


def stages(known: Dependence, movable: np.ndarray) -> np.ndarray:
    """By site, how many others must have come to rest one after the other before its statistic is a power."""
    out = np.zeros(len(movable), np.int32)
    for n in range(len(out)):
        bends, powers = known.bends[n, :n] & movable[:n], (known.degrees[n] != 0) & movable
        out[n] = max([0, *(out[:n][bends] + 1), *out[powers]])
    return out


def status_of(
    case: Case, after: np.ndarray, fixed: np.ndarray, passes: np.ndarray
) -> tuple[tuple[str, str], ...]:
    """By site, what became of it and why."""
    out = []
    for n, value in enumerate(after):
        kept, target = case.kept[n], case.targets[n]
        if np.isnan(value):
            out.append(("unused", "the batch did not take its branch"))
        elif kept is not None:
            out.append(kept)
        elif value == 0:
            out.append(("dead", "it is given zeros, or what it is multiplied with is 0"))
        elif fixed[n] and case.products.products[n].bias and value > target:
            out.append(("not converged", f"its bias alone is above the target; {_AS_IT_WAS}"))
        elif fixed[n]:
            out.append(("constant", f"{_UNMOVED}; {_AS_IT_WAS}"))
        elif abs(value / target - 1) <= case.tolerance:
            out.append(("converged", ""))
        else:
            out.append(("not converged", _why(case, n, float(value), int(passes[n]))))
    return tuple(out)


def _why(case: Case, n: int, value: float, passes: int) -> str:
    if not np.isfinite(value):
        return "its values are not finite"
    at = f"{case.statistic} {value:.3g} instead of {case.targets[n]:.3g} after {passes} passes"
    product = case.products.products[n]
    return f"{at}; its bias is not scaled with it" if product.bias and value > case.targets[n] else at
