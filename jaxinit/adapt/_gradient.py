"""Scales learned by gradient descent on the gradient quotient (MetaInit)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.adapt._calibrate_case import Case, Outcome, ownership, scaled_leaves
from jaxinit.probe import Figures, Products

__all__ = ["gradient_quotient", "learned"]

#: In the quotient's denominator, with the sign of the gradient there (Dauphin & Schoenholz 2019).
EPSILON = 1e-5
#: Step of Adam, in ln(scale); it falls to 0 along a cosine.
RATE = 0.1
#: Random cotangents by which points of the way are compared; others than those of the descent.
_HELD_OUT = 4
#: The quotient is spiky (entries of g pass through 0), so the best of so many points of the way is taken.
_POINTS = 8


def gradient_quotient(loss: Any, leaves: Sequence[Any]) -> Any:
    """GQ = mean over the parameters i of |(g - H g)_i / (g_i + eps sgn(g_i)) - 1|, g the gradient and H the Hessian of
    `loss(leaves)`: how much a gradient step changes the gradient. `leaves`: floating arrays.

    Source: Dauphin & Schoenholz 2019, "MetaInit".

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxinit.adapt._gradient import gradient_quotient
        >>> round(float(gradient_quotient(lambda leaves: 3.0 * leaves[0].sum(), [jnp.ones(2)])), 4)  # no curvature
        0.0
        >>> round(float(gradient_quotient(lambda leaves: (leaves[0] ** 2).sum(), [jnp.ones(2)])), 3)
        2.0
    """
    slope = jax.grad(loss)
    g, hg = jax.jvp(lambda v: slope(v), (list(leaves),), (slope(list(leaves)),))
    total = jnp.zeros((), jnp.float32)
    for a, b in zip(g, hg, strict=True):
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        sign = jnp.where(a >= 0, 1.0, -1.0)
        total += jnp.sum(jnp.abs((a - b) / (a + EPSILON * sign) - 1))
    return total / sum(v.size for v in leaves)


class _Learned(NamedTuple):
    scale: Any
    quotients: Any
    before: Figures
    after: Figures
    leaves: list[Any]


class _Given(NamedTuple):
    leaves: Sequence[Any]
    state: Any
    batches: Any
    labels: Any
    key: Any
    owner: Sequence[Any]
    movable: Any


def learned(case: Case) -> Outcome:
    """Descend on the gradient quotient over ln(scale) of every site, a batch and a random cotangent a step."""
    given = _Given(
        case.leaves, case.state, jax.tree.map(lambda *v: jnp.stack(v), *case.batches),
        None if case.labels is None else jax.tree.map(lambda *v: jnp.stack(v), *case.labels),
        case.key, ownership(case.products, case.own), case.movable,
    )  # fmt: skip
    steps = int(case.options["steps"])
    found = _descend(case.products, steps, len(case.batches), given)
    first, last = (float(q) for q in found.quotients)
    fell = math.isfinite(last) and last < first
    moved = np.exp(np.asarray(found.scale, np.float64))
    before, after = (np.exp(np.asarray(f.log_second_moment, np.float64)) for f in (found.before, found.after))
    count = len(case.own)
    return Outcome(
        moved if fell else np.ones(count), np.zeros(count), before, after if fell else before,
        np.where(case.movable & fell, steps, 0), tuple(_said(case, n, before, fell) for n in range(count)),
        steps, statistic="second moment", targets=np.full(count, np.nan),
        figures={"gradient quotient before": first, "gradient quotient after": last},
        leaves=found.leaves if fell else case.leaves,
    )  # fmt: skip


def _said(case: Case, n: int, before: np.ndarray, fell: bool) -> tuple[str, str]:
    kept = case.kept[n]
    if np.isnan(before[n]):
        return "unused", "the batch did not take its branch"
    if kept is not None:
        return kept
    if before[n] == 0:
        return "dead", "it is given zeros, or what it is multiplied with is 0"
    if fell:
        return "converged", ""
    return "not converged", "the gradient quotient did not fall; its scale is as it was"


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _descend(products: Products, steps: int, count: int, given: _Given) -> _Learned:
    import optax

    held = [n for n, leaf in enumerate(given.leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    nothing = [None] * len(given.leaves)
    share = 1.0 / products.examples

    def scaled(scale: Any) -> list[Any]:
        return scaled_leaves(given.leaves, given.owner, jnp.exp(scale), nothing, jnp.zeros_like(scale))

    def quotient(scale: Any, n: Any) -> Any:
        """On batch n mod count, with the n-th cotangent."""
        args, labels = jax.tree.map(lambda v: v[n % count], (given.batches, given.labels))
        leaves = scaled(scale)
        key = jax.random.fold_in(given.key, n)

        def loss(floating: list[Any]) -> Any:
            every = list(leaves)
            for index, leaf in zip(held, floating, strict=True):
                every[index] = leaf
            value = products.loss(every, given.state, args, labels, key)
            return value * share if products.random else value

        with jax.numpy_dtype_promotion("standard"):
            return gradient_quotient(loss, [leaves[index] for index in held])

    def judged(scale: Any) -> Any:
        return jnp.mean(jax.lax.map(lambda n: quotient(scale, n), steps + jnp.arange(_HELD_OUT)))

    def seen(scale: Any) -> Figures:
        first = jax.tree.map(lambda v: v[0], given.batches)
        return products.forward(scaled(scale), given.state, first, given.key)

    with jax.numpy_dtype_promotion("standard"):
        optimizer = optax.chain(optax.zero_nans(), optax.adam(optax.cosine_decay_schedule(RATE, steps)))
    start = jnp.zeros(len(products.products), jnp.float32)

    def step(carry: Any, n: Any) -> Any:
        scale, held_state = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, held_state = optimizer.update(jax.grad(quotient)(scale, n), held_state, scale)
        scale = scale + jnp.where(given.movable, updates, 0)
        return (scale, held_state), scale

    _, way = jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(steps))
    points = np.unique(np.linspace(0, steps - 1, min(steps, _POINTS)).astype(int))
    tried = jnp.concatenate([start[None], way[points]])
    all_quotients = jax.lax.map(judged, tried)
    best = jnp.nanargmin(all_quotients)
    scale, quotients = tried[best], all_quotients[jnp.stack([jnp.zeros_like(best), best])]
    pair = jax.lax.map(seen, jnp.stack([start, scale]))
    before, after = (jax.tree.map(lambda v, i=i: v[i], pair) for i in (0, 1))
    return _Learned(scale, quotients, before, after, scaled(scale))
