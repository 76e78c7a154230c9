"""Layer-sequential calibration: one compiled search that scales each site until its statistic is at its target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.adapt._calibrate_case import Case, Outcome, ownership, scaled_leaves
from jaxinit.probe import Dependence, Figures, Products

__all__ = ["dependence_of", "lsuv", "run", "search"]

#: A scale that is multiplied by e^step changes the log of the statistic by less than this times the step: it has none.
_NO_EFFECT = 0.05
_AS_IT_WAS = "its scale is as it was"
_UNMOVED = "the scale does not change it: its input is 0 and it shows its bias, or its kernel is normalized"
#: Steps of ln(scale) are at most this large; where the signal overflows they are this one.
_LARGEST, _RETREAT = 15.0, -7.0
#: After all stages.
_LAST = 1 << 30


class Given(NamedTuple):
    """The data of a search; everything else is its program."""

    leaves: Sequence[Any]
    state: Any
    batches: Any
    key: Any
    owner: Sequence[Any]
    bias: Sequence[Any]
    degrees: Any
    stage: Any
    slope: Any
    movable: Any
    shiftable: Any
    targets: Any
    before: Any
    tolerance: Any
    most: Any


class Search(NamedTuple):
    """Where a search stands; arrays by site. `statistic` is a natural logarithm, `step` the last change of `scale`."""

    scale: Any
    shift: Any
    step: Any
    slope: Any
    passes: Any
    fixed: Any
    first: Any
    statistic: Any
    seen: Figures
    evaluations: Any
    running: Any


def measure(products: Products, partial: bool, given: Given, leaves: Sequence[Any]) -> Figures:
    """The figures of all batches together; with partial Jacobians, if asked for."""
    taken = products.partial if partial else products.forward
    return _together(lambda each: taken(leaves, given.state, each, given.key), given.batches)


def _together(measured: Callable[[Any], Figures], data: Any) -> Figures:
    """Over the first axis of the data: the means of squares and values."""
    count = jax.tree.leaves(data)[0].shape[0]
    if count == 1:
        return measured(jax.tree.map(lambda v: v[0], data))
    each = jax.lax.map(measured, data)

    def pooled(log: Any) -> Any:
        return jax.nn.logsumexp(log, axis=0) - math.log(count)

    gradient = None if each.log_gradient is None else pooled(each.log_gradient)
    return Figures(pooled(each.log_second_moment), jnp.mean(each.mean, axis=0), gradient)


def statistic_of(products: Products, figures: Figures, variance: bool, before: Any) -> Any:
    """The log of each site's statistic: its second moment or variance; or, where `before` names a site p, chi_1 =
    |J|_F^2 / n of the site's partial Jacobian with respect to p, n the number of its own entries."""
    log = figures.log_second_moment
    if variance:
        share = jnp.square(figures.mean) * jnp.exp(-log)
        log = jnp.where(share < 1, log + jnp.log1p(-jnp.minimum(share, 1)), -jnp.inf)
    if figures.log_gradient is None:
        return log
    gradient = figures.log_gradient
    return jnp.where(before >= 0, gradient[before] - products.log_sizes, log)


def _plan(given: Given, now: Search, statistic: Any, mean: Any, variance: bool) -> tuple[Any, Any]:
    """The steps of ln(scale), and the shifts, that one evaluation allows.

    Those sites move that belong to the first stage in which any is off: nothing that bends their statistic moves with
    them, and what is known of one another's effect is solved for.
    """
    off = given.targets - statistic
    finite, overflow = jnp.isfinite(off), jnp.isneginf(off)
    overflow = overflow & (jnp.cumsum(overflow) == 1)  # the first; the others may be its doing
    free = given.movable & ~now.fixed & (now.passes < given.most)
    want = free & (overflow | (finite & (jnp.abs(jnp.expm1(off)) > given.tolerance)))
    stage = jnp.min(jnp.where(want, given.stage, _LAST))
    moving = free & (finite | overflow) & (given.stage == stage)
    size = jnp.where(overflow, _RETREAT * now.slope, jnp.where(moving & finite, off, 0))
    together = (moving[:, None] & moving[None, :]).astype(jnp.float32)
    system = 2 * given.degrees * together + jnp.diag(jnp.where(moving, now.slope, 1))
    step = jax.scipy.linalg.solve_triangular(system, size, lower=True)
    slight = jnp.abs(jnp.expm1(step * now.slope)) <= given.tolerance / 10
    step = jnp.where(moving & ~slight, jnp.clip(step, -_LARGEST, _LARGEST), 0)
    if not variance:
        return step, jnp.zeros_like(step)
    # A bias is shifted once the scales up to it are right: the variance stays as it is.
    rms = jnp.exp(statistic / 2)
    off_centre = given.shiftable & finite & (jnp.abs(mean) > given.tolerance * rms)
    off_centre = off_centre & (now.passes < given.most) & (given.stage < stage)
    first = off_centre & (given.stage == jnp.min(jnp.where(off_centre, given.stage, _LAST)))
    return jnp.where(jnp.any(first), 0, step), jnp.where(first, -mean, 0)


def search(products: Products, partial: bool, variance: bool, given: Given) -> tuple[Search, list[Any]]:
    """The whole search: one loop, in which the model is evaluated with scaled parameters and every site is read; and
    the parameters that it ends with."""
    count = len(products.products)

    def scaled(now: Search) -> list[Any]:
        return scaled_leaves(given.leaves, given.owner, jnp.exp(now.scale), given.bias, now.shift)

    def evaluate(now: Search) -> Search:
        figures = measure(products, partial, given, scaled(now))
        statistic = statistic_of(products, figures, variance, given.before)
        # What the last step did, beyond the effect of the others' steps that is known.
        moved = (now.step != 0) & jnp.isfinite(statistic) & jnp.isfinite(now.statistic)
        own = statistic - now.statistic - 2 * jnp.sum(given.degrees * now.step[None, :], axis=1)
        found = own / jnp.where(moved, now.step, 1)
        told = moved & (jnp.abs(now.step) > 0.05)
        slope = jnp.where(told, jnp.clip(found, 0.2, 8.0), now.slope)
        idle = told & (jnp.abs(found) < _NO_EFFECT)
        scale = jnp.where(idle, 0.0, now.scale)
        now = now._replace(
            scale=scale, slope=slope, fixed=now.fixed | idle, statistic=statistic, seen=figures,
            first=jnp.where(now.evaluations == 0, statistic, now.first),
            evaluations=now.evaluations + 1,
        )  # fmt: skip
        step, shift = _plan(given, now, statistic, figures.mean, variance)
        change = (step != 0) | (shift != 0)
        return now._replace(
            scale=now.scale + step, shift=now.shift + shift, step=step, passes=now.passes + change.astype(jnp.int32),
            running=jnp.any(change | idle),
        )  # fmt: skip

    zero = jnp.zeros(count, jnp.float32)
    start = Search(
        scale=zero, shift=zero, step=zero, slope=given.slope, passes=jnp.zeros(count, jnp.int32),
        fixed=jnp.zeros(count, bool), first=zero, statistic=zero,
        seen=Figures(zero, zero, zero if partial else None),
        evaluations=jnp.zeros((), jnp.int32), running=jnp.ones((), bool),
    )  # fmt: skip
    last = jax.lax.while_loop(lambda now: now.running, evaluate, start)
    return last, scaled(last)


def lsuv(case: Case) -> Outcome:
    """Scale every site, in the order of execution, until its statistic is at its target."""
    return run(case, dependence_of(case))


def dependence_of(case: Case) -> Dependence:
    """As the program says; what comes later in the program (loops) is left to the repetition of the search."""
    known = case.products.dependence(case.own, case.zero)
    if any(case.bias):  # shifted biases are of no degree in anything
        count = len(case.own)
        known = known._replace(degrees=np.eye(count), bends=np.ones((count, count), bool))
    return known._replace(degrees=np.tril(known.degrees), bends=np.tril(known.bends, -1))


def run(case: Case, dependence: Dependence, before: np.ndarray | None = None, cotangents: int = 0) -> Outcome:
    """Search, and put the result into words.

    `before`: by site, the one from which the partial Jacobian is its statistic; -1 (or None for all) where its own
    moment is.
    """
    movable = case.movable & ~np.isnan(case.targets)
    own = np.diagonal(dependence.degrees)
    given = Given(
        leaves=case.leaves,
        state=case.state,
        batches=_stacked(case.batches),
        key=case.key,
        owner=tuple(ownership(case.products, case.own)),
        bias=tuple(ownership(case.products, case.bias)),
        degrees=(dependence.degrees - np.diag(own)).astype(np.float32),
        stage=stages(dependence, movable),
        slope=np.where(own > 0, 2 * own, 2).astype(np.float32),
        movable=movable,
        shiftable=np.array([bool(layers) for layers in case.bias]),
        targets=np.log(case.targets).astype(np.float32),  # nan where nothing is asked
        before=np.full(len(movable), -1, np.int32) if before is None else before.astype(np.int32),
        tolerance=np.float32(case.tolerance),
        most=np.int32(case.passes),
    )
    search, leaves = _search(case.products, before is not None, case.statistic == "variance", given)
    found = jax.device_get(search)
    first, last = (np.exp(np.asarray(v, np.float64)) for v in (found.first, found.statistic))
    return Outcome(
        np.exp(np.asarray(found.scale, np.float64)), np.asarray(found.shift, np.float64), first, last,
        np.asarray(found.passes), status_of(case, last, found.fixed, found.passes), int(found.evaluations),
        leaves=leaves, seen=found.seen,
    )  # fmt: skip


def stages(known: Dependence, movable: np.ndarray) -> np.ndarray:
    """By site, how many others must have come to rest one after the other before its statistic is a power."""
    out = np.zeros(len(movable), np.int32)
    for n in range(len(out)):
        bends, powers = known.bends[n] & movable, (known.degrees[n] != 0) & movable
        out[n] = max([0, *(out[bends] + 1), *out[powers]])
    return out


_search = jax.jit(search, static_argnums=(0, 1, 2))


def _stacked(batches: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *v: jnp.stack(v), *batches)


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
