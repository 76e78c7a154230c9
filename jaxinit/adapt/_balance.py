"""Scales that level the gradient over a model's sites: one compiled least-squares search on what is measured.

The unknowns are the logarithms u of the sites' scales. An evaluation of the model gives by site

    Q   ln of the second moment of the value
    R   ln of what is to be level: the square of the gradient's length, or of a weight's gradient relative to the weight

and the search lowers

    sum_compared (R - mean of R)^2 + WEIGHT^2 sum (Q - target)^2 + HOLD^2 sum (what Q - target exceeds the band by)^2

by the method of Levenberg and Marquardt, with derivatives by differences. Every turn of its loop evaluates the model
once: at the start, at a point beside, or where a step leads. So the model stands in the program once, however many
sites there are; a round of the search takes as many evaluations as there are sites, and one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinit.adapt._calibrate_case import scaled_leaves
from jaxinit.probe import Products

__all__ = ["BAND", "Balance", "Start", "balance"]

#: How far from its target a second moment may be taken, as a factor either way.
BAND = 16.0
#: Of a second moment off its target, beside a gradient off the level.
_WEIGHT = 0.1
#: The push back begins so far (in logs) inside the band, and weighs so much: against gradients 10^4 apart it holds.
_MARGIN, _HOLD = 0.3, 5.0
#: The search has arrived where nothing compared is further than this from its mean, in logs.
_ARRIVED = 0.1
#: Step of differences, and the largest step of the search, in ln(scale).
_BESIDE, _LARGEST = 0.03, 0.5
#: Random cotangents are drawn for so many examples, if that takes no more than so many draws a batch.
_EXAMPLES, _DRAWS = 64, 8
#: The least damping, relative; its change with each step that helps, and with each that does not; how many of these.
_DAMPING, _EASE, _BRAKE, _RETRIES = 1e-3, 0.25, 8.0, 6
_ROUNDS = 30


class Start(NamedTuple):
    """The data of a search.

    `moving`, `compared`: indices of sites. `scale`: by site, the log to begin with. `targets`: by site, of second
    moments, as logs; nan where nothing is asked.
    """

    leaves: Sequence[Any]
    state: Any
    batches: Any
    key: Any
    owner: Sequence[Any]
    moving: Any
    compared: Any
    scale: Any
    targets: Any


class Balance(NamedTuple):
    """What a search found, by site: `scale` and the parameters scaled with it; (Q, R) as drawn, at the start and at the
    end; `spread`, the largest distance of a compared R from their mean, infinite where values are not finite."""

    scale: Any
    leaves: list[Any]
    drawn: Any
    begun: Any
    found: Any
    spread: Any
    rounds: Any
    evaluations: Any


class _State(NamedTuple):
    """`column`: what is evaluated next: -2 and -1, the parameters as drawn and at the start; 0 ..., a point beside;
    then where `step` leads."""

    u: Any
    seen: Any
    drawn: Any
    begun: Any
    slopes: Any
    column: Any
    step: Any
    damping: Any
    rounds: Any
    tries: Any
    evaluations: Any
    running: Any


def backward(
    products: Products, updates: bool, start: Start, leaves: Sequence[Any], args: Any, key: Any
) -> Any:
    """(Q, R) of all sites, for one batch and one draw of signs, shape (2, sites)."""
    figures, norms = products.backward(leaves, start.state, args, key)
    square = figures.log_second_moment
    if not updates:
        return jnp.stack([square, figures.log_gradient])
    sites = jnp.concatenate([
        jnp.full(math.prod(stack), -1) if own is None else jnp.ravel(own)
        for own, stack in zip(start.owner, products.stacks, strict=True)
    ])  # fmt: skip

    def total(each: Any) -> Any:
        """By site; what no site owns goes to one behind the last."""
        return jnp.zeros(len(square) + 1).at[sites].add(jnp.square(each))[:-1]

    return jnp.stack([square, jnp.log(total(norms.gradients)) - jnp.log(total(norms.parameters))])


@functools.partial(jax.jit, static_argnums=(0, 1))
def balance(products: Products, updates: bool, start: Start) -> Balance:
    """Search. `updates`: level are squares of |dL/dW| / |W|, not of the gradient's length."""
    count, sites = len(products.products), len(start.moving)
    evaluate = _evaluation(products, updates, start)
    problem = _Problem(start, count)
    origin = start.scale[start.moving]

    def beside(now: _State, seen: Any) -> _State:
        slope = (seen - now.seen) / _BESIDE
        slope = jnp.where(jnp.isfinite(slope), slope, 0)
        slopes = jnp.where(jnp.arange(sites) == now.column, slope[:, :, None], now.slopes)
        new = now._replace(slopes=slopes, column=now.column + 1)
        return new._replace(step=jax.lax.cond(new.column == sites, problem.step, lambda s: s.step, new))

    def arrived(now: _State, seen: Any) -> _State:
        cost, before = problem.cost(seen), problem.cost(now.seen)
        better = cost < before
        kept = jnp.where(better, seen, now.seen)
        tries = jnp.where(better, 0, now.tries + 1)
        rounds = now.rounds + better.astype(jnp.int32)
        going = jnp.where(better, cost < 0.98 * before, tries < _RETRIES) & (rounds < _ROUNDS)
        new = now._replace(
            u=jnp.where(better, now.u + now.step, now.u), seen=kept, rounds=rounds, tries=tries,
            damping=jnp.where(better, jnp.maximum(now.damping * _EASE, _DAMPING), now.damping * _BRAKE),
            column=jnp.where(better, 0, sites), running=going & (problem.spread(kept) > _ARRIVED),
        )  # fmt: skip
        return new._replace(step=jax.lax.cond(better, lambda s: s.step, problem.step, new))

    def begun(now: _State, seen: Any) -> _State:
        last = now.column == -1
        return now._replace(
            seen=seen, drawn=jnp.where(last, now.drawn, seen), begun=seen, u=origin, column=now.column + 1,
            running=~last | (jnp.isfinite(problem.cost(seen)) & (problem.spread(seen) > _ARRIVED)),
        )  # fmt: skip

    def turn(now: _State) -> _State:
        nudge = jnp.where(jnp.arange(sites) == now.column, _BESIDE, 0)
        seen = evaluate(now.u + jnp.where(now.column == sites, now.step, nudge))
        case = jnp.where(now.column < 0, 0, jnp.where(now.column < sites, 1, 2))
        new = jax.lax.switch(case, [begun, beside, arrived], now, seen)
        return new._replace(evaluations=now.evaluations + 1)

    nothing = jnp.zeros((2, count))
    last = jax.lax.while_loop(
        lambda now: now.running, turn,
        _State(
            u=jnp.zeros(sites), seen=nothing, drawn=nothing, begun=nothing, slopes=jnp.zeros((2, count, sites)),
            column=jnp.int32(-2), step=jnp.zeros(sites), damping=jnp.float32(_DAMPING), rounds=jnp.int32(0),
            tries=jnp.int32(0), evaluations=jnp.int32(0), running=jnp.bool_(True),
        ),
    )  # fmt: skip
    scale = start.scale.at[start.moving].set(last.u)
    return Balance(
        scale, _scaled(start, scale), last.drawn, last.begun, last.seen,
        problem.spread(last.seen), last.rounds, last.evaluations,
    )  # fmt: skip


def _scaled(start: Start, scale: Any) -> list[Any]:
    nothing = [None] * len(start.leaves)
    return scaled_leaves(start.leaves, start.owner, jnp.exp(scale), nothing, jnp.zeros_like(scale))


def _evaluation(products: Products, updates: bool, start: Start) -> Any:
    """`u -> (Q, R)`, means of squares over all batches and several draws of cotangents, the same for every u."""
    batches = jax.tree.leaves(start.batches)[0].shape[0]
    draws = batches * min(_DRAWS, -(-_EXAMPLES // (products.examples * batches)))

    def evaluate(u: Any) -> Any:
        leaves = _scaled(start, start.scale.at[start.moving].set(u))

        def one(n: Any) -> Any:
            args = jax.tree.map(lambda v: v[n % batches], start.batches)
            return backward(products, updates, start, leaves, args, jax.random.fold_in(start.key, n))

        return jax.nn.logsumexp(jax.lax.map(one, jnp.arange(draws)), axis=0) - math.log(draws)

    return evaluate


class _Problem:
    """The least squares. `seen` is (Q, R)."""

    def __init__(self, start: Start, count: int) -> None:
        self.start, self.count = start, count
        self.asked = jnp.isfinite(start.targets)
        compared = len(start.compared)
        own = jnp.eye(compared) - 1 / compared
        #: The matrix that takes R to its distances from the mean; a row a compared site.
        self.off_level = jnp.zeros((compared, count)).at[:, start.compared].set(own)

    def residuals(self, seen: Any) -> tuple[Any, Any]:
        """What is squared, and its derivative with respect to (Q, R) as one vector."""
        square, level = seen
        off = jnp.where(self.asked & jnp.isfinite(square), square - self.start.targets, 0)
        over = _HOLD * jnp.sign(off) * jnp.maximum(jnp.abs(off) - (math.log(BAND) - _MARGIN), 0)
        values = [self.off_level @ jnp.where(jnp.isfinite(level), level, 0), _WEIGHT * off, over]
        none = jnp.zeros((self.count, self.count))
        rows = [
            [jnp.zeros_like(self.off_level), self.off_level],
            [_WEIGHT * jnp.diag(self.asked.astype(jnp.float32)), none],
            [_HOLD * jnp.diag((over != 0).astype(jnp.float32)), none],
        ]
        return jnp.concatenate(values), jnp.block(rows)

    def finite(self, seen: Any) -> Any:
        """Whether what is compared is, and no signal overflows."""
        level = jnp.all(jnp.isfinite(seen[1][self.start.compared]))
        return level & ~jnp.any(self.asked & jnp.isposinf(seen[0]))

    def cost(self, seen: Any) -> Any:
        return jnp.where(self.finite(seen), jnp.sum(jnp.square(self.residuals(seen)[0])), jnp.inf)

    def spread(self, seen: Any) -> Any:
        """The largest distance of a compared R from their mean."""
        off = self.off_level @ jnp.where(jnp.isfinite(seen[1]), seen[1], 0)
        return jnp.where(self.finite(seen), jnp.max(jnp.abs(off)), jnp.inf)

    def step(self, now: _State) -> Any:
        """Of ln(scale), by site that moves."""
        value, rows = self.residuals(now.seen)
        sites = now.slopes.shape[-1]
        jacobian = rows @ now.slopes.reshape(2 * self.count, sites)
        system = jacobian.T @ jacobian
        shift = now.damping * (jnp.trace(system) / sites + _DAMPING)
        step = -jnp.linalg.solve(system + shift * jnp.eye(sites), jacobian.T @ value)
        step = jnp.where(jnp.isfinite(step), step, 0)
        return step * jnp.minimum(1, _LARGEST / jnp.maximum(jnp.max(jnp.abs(step)), _LARGEST))
