"""The statistics of one site, from its signal or its gradient; the definitions are in `jaxinit.records`.

Signals are (inputs, units) with one exponent an input: the signal is z * 2^exponent.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.scaled import Scaled, is_infinite, pow2
from jaxinit._core.sums import FEW, one_loop, products, products_and, sums

FORWARD = frozenset(
    {
        "second_moment", "log_second_moment", "mean", "kurtosis", "correlation", "one_minus_correlation",
        "dead_fraction", "saturated_fraction", "zero_fraction",
    }
)  # fmt: skip
BACKWARD = frozenset(
    {"grad_second_moment", "log_grad_second_moment", "grad_correlation", "weight_grad_norm", "update_ratio"}
)

#: Those of which logarithms are recorded too.
LOGS = {"second_moment": "log_second_moment", "grad_second_moment": "log_grad_second_moment"}

#: Statistics of pairs of inputs.
PAIRWISE = frozenset({"correlation", "one_minus_correlation", "grad_correlation"})

#: A unit is saturated when |phi'| is below this share of its maximum.
SATURATED = 1e-2


def pairs(inputs: int) -> tuple[tuple[int, int], ...]:
    """The pairs (a, b), a < b, that correlations speak of."""
    return tuple(itertools.combinations(range(inputs), 2))


def _finite_or(other: float, mantissa: jax.Array, exponent: jax.Array, lost: jax.Array) -> Scaled:
    """The number, or `other` where it has left the range of numbers."""
    return Scaled(jnp.where(lost, other, mantissa), jnp.where(lost, 0, exponent))


def log_of(value: Scaled) -> Scaled:
    """Its natural logarithm."""
    return Scaled(value.mantissa, value.exponent, log=True)


def with_logs(wanted: frozenset[str], out: dict[str, Any]) -> dict[str, Any]:
    """The statistics of all sites with the logarithms of some, which the steps over layers leave to the end."""
    out = out | {log: log_of(out[name]) for name, log in LOGS.items() if log in wanted and name in out}
    return {name: value for name, value in out.items() if name in wanted or name not in LOGS}


def _mean_squares(inner: jax.Array, n: int, exponent: jax.Array) -> Scaled:
    """Of rows of n entries, from their inner products."""
    square = _entries(inner, tuple((a, a) for a in range(len(inner)))) / n
    return _finite_or(jnp.inf, square, 2 * exponent, is_infinite(exponent))


def _cosines(inner: jax.Array) -> jax.Array:
    """Of the pairs of rows, from their inner products; nan for a zero row, which has no direction."""
    first, second = (tuple((p[i], p[i]) for p in pairs(len(inner))) for i in (0, 1))
    lengths = jnp.sqrt(_entries(inner, first)) * jnp.sqrt(_entries(inner, second))
    return _entries(inner, pairs(len(inner))) / lengths


def _entries(table: jax.Array, places: tuple[tuple[int, int], ...]) -> jax.Array:
    """Those of a table at the places, one by one where they are few."""
    if len(table) <= FEW:
        return jnp.stack([table[a, b] for a, b in places])
    first, second = np.asarray(places, np.int32).T
    return table[first, second]


def _squared_distances(x: jax.Array, inverse: jax.Array) -> list[jax.Array]:
    """Of the directions of pairs of rows, given 1 / lengths, unit by unit: an array a pair, or one of all if many."""
    u = x * inverse[:, None]
    if len(x) <= FEW:
        return [jnp.square(u[a] - u[b]) for a, b in pairs(len(x))]
    first, second = np.asarray(pairs(len(x)), np.int32).T
    return [jnp.square(u[first] - u[second])]


def _in_every_row(x: jax.Array) -> jax.Array:
    """`jnp.all` over rows, in vectors along them where they are few."""
    return functools.reduce(jnp.logical_and, x) if len(x) <= FEW else jnp.all(x, axis=0)


def _share_of_rows(x: jax.Array, dtype: Any) -> jax.Array:
    """The mean over rows of what holds or not."""
    x = x.astype(dtype)
    return (functools.reduce(jnp.add, x) if len(x) <= FEW else jnp.sum(x, axis=0)) / len(x)


def forward(
    wanted: frozenset[str],
    z: jax.Array,
    exponent: jax.Array,
    value: jax.Array,
    slope: jax.Array,
    largest: float,
) -> dict[str, Any]:
    """Statistics of the pre-activation z * 2^exponent, with phi (up to scale) and phi' there."""
    out: dict[str, Any] = {}
    n, lost = z.shape[1], is_infinite(exponent)
    shares: dict[str, jax.Array] = {}
    if "dead_fraction" in wanted:
        shares["dead_fraction"] = _in_every_row(slope == 0).astype(z.dtype)
    if "saturated_fraction" in wanted:
        shares["saturated_fraction"] = _share_of_rows(jnp.abs(slope) < SATURATED * largest, z.dtype)
    if "zero_fraction" in wanted:
        shares["zero_fraction"] = _share_of_rows((value == 0) & ~lost[:, None], z.dtype)
    inner, total, *found = products_and(z, None, z, *shares.values())
    out |= {name: value / n for name, value in zip(shares, found, strict=True)}
    out["second_moment"] = _mean_squares(inner, n, exponent)
    mean, inverse = one_loop(total / n, 1 / jnp.sqrt(_entries(inner, tuple((a, a) for a in range(len(z))))))
    if "correlation" in wanted:
        out["correlation"] = _cosines(inner)
    out["mean"] = _finite_or(jnp.nan, mean, exponent, lost)
    # Around what the first loop has found.
    central = jnp.square(z - mean[:, None])
    again = {
        "kurtosis": [central, jnp.square(central)],
        "one_minus_correlation": _squared_distances(z, inverse),
    }
    again = {name: arrays for name, arrays in again.items() if name in wanted}
    second = iter(sums(*itertools.chain.from_iterable(again.values())))
    if "kurtosis" in again:
        square, fourth = next(second) / n, next(second) / n
        out["kurtosis"] = fourth / jnp.square(square) - 3
    if "one_minus_correlation" in again:
        half = jnp.concatenate([jnp.atleast_1d(v) for v in second]) / 2
        out["one_minus_correlation"] = Scaled(half, jnp.zeros(half.shape, jnp.int32))
    return {name: out[name] for name in out if name in wanted or LOGS.get(name) in wanted}


def backward(
    wanted: frozenset[str],
    d: jax.Array,
    exponent: jax.Array,
    squared_gradient: Callable[[jax.Array], jax.Array],
    before: jax.Array,
    squared_norm: jax.Array | None,
) -> dict[str, Any]:
    """Statistics of the gradient d * 2^exponent, and of dL/dW = sum_a h_a d_a^T of the layer.

    `squared_gradient`: of weights w_a, ||sum_a w_a h_a d_a^T||^2 without exponents; `before`: those of the h_a.
    """
    out: dict[str, Any] = {}
    inner = products(d)
    out["grad_second_moment"] = _mean_squares(inner, d.shape[1], exponent)
    if "grad_correlation" in wanted:
        out["grad_correlation"] = _cosines(inner)
    if wanted & {"weight_grad_norm", "update_ratio"}:
        each = before + exponent  # at the scale of the largest term
        top = jnp.max(each)
        norm = jnp.sqrt(squared_gradient(pow2(each - top, d.dtype)))
        lost = jnp.any(is_infinite(exponent) | is_infinite(before))
        out["weight_grad_norm"] = _finite_or(jnp.inf, norm, top, lost)
        if squared_norm is not None:
            out["update_ratio"] = _finite_or(jnp.inf, norm / jnp.sqrt(squared_norm), top, lost)
    return {name: out[name] for name in out if name in wanted or LOGS.get(name) in wanted}
