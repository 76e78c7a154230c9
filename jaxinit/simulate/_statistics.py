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

#: Up to this many rows their pairs are written out, which is faster to run, and slower to compile.
_FEW = 4

#: A unit is saturated when |phi'| is below this share of its maximum.
SATURATED = 1e-2


def pairs(inputs: int) -> tuple[tuple[int, int], ...]:
    """The pairs (a, b), a < b, that correlations speak of."""
    return tuple(itertools.combinations(range(inputs), 2))


def _mean_square(x: jax.Array, exponent: jax.Array) -> Scaled:
    return _finite_or(jnp.inf, jnp.mean(jnp.square(x), axis=1), 2 * exponent, is_infinite(exponent))


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


def _directions(x: jax.Array) -> jax.Array:
    """Rows of unit length; nan for a zero row, which has no direction."""
    return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=1, keepdims=True))


def _sum_over_pairs(x: jax.Array, term: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """Sums over units of term(u_a, u_b), u the rows' directions, for the pairs of rows."""
    u = _directions(x)
    if len(u) <= _FEW:
        return jnp.stack([jnp.sum(term(u[a], u[b])) for a, b in pairs(len(u))])
    index = np.asarray(pairs(len(u)), dtype=np.int32)
    return jnp.sum(term(u[index[:, 0]], u[index[:, 1]]), axis=1)


def _in_every_row(x: jax.Array) -> jax.Array:
    """`jnp.all` over rows, in vectors along them where they are few."""
    return functools.reduce(jnp.logical_and, x) if len(x) <= _FEW else jnp.all(x, axis=0)


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
    square = _mean_square(z, exponent)
    out["second_moment"] = square
    if wanted & {"mean", "kurtosis"}:
        mean = jnp.mean(z, axis=1)
        out["mean"] = _finite_or(jnp.nan, mean, exponent, is_infinite(exponent))
        if "kurtosis" in wanted:
            central = jnp.square(z - mean[:, None])
            out["kurtosis"] = (
                jnp.mean(jnp.square(central), axis=1) / jnp.square(jnp.mean(central, axis=1)) - 3
            )
    if wanted & {"correlation", "one_minus_correlation"}:
        out["correlation"] = _sum_over_pairs(z, jnp.multiply)
        half = _sum_over_pairs(z, lambda a, b: jnp.square(a - b)) / 2
        out["one_minus_correlation"] = Scaled(half, jnp.zeros(half.shape, jnp.int32))
    if "dead_fraction" in wanted:
        out["dead_fraction"] = jnp.mean(_in_every_row(slope == 0).astype(z.dtype))
    if "saturated_fraction" in wanted:
        out["saturated_fraction"] = jnp.mean((jnp.abs(slope) < SATURATED * largest).astype(z.dtype))
    if "zero_fraction" in wanted:
        out["zero_fraction"] = jnp.mean(((value == 0) & ~is_infinite(exponent)[:, None]).astype(z.dtype))
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
    square = _mean_square(d, exponent)
    out["grad_second_moment"] = square
    if "grad_correlation" in wanted:
        out["grad_correlation"] = _sum_over_pairs(d, jnp.multiply)
    if wanted & {"weight_grad_norm", "update_ratio"}:
        each = before + exponent  # at the scale of the largest term
        top = jnp.max(each)
        norm = jnp.sqrt(squared_gradient(pow2(each - top, d.dtype)))
        lost = jnp.any(is_infinite(exponent) | is_infinite(before))
        out["weight_grad_norm"] = _finite_or(jnp.inf, norm, top, lost)
        if squared_norm is not None:
            out["update_ratio"] = _finite_or(jnp.inf, norm / jnp.sqrt(squared_norm), top, lost)
    return {name: out[name] for name in out if name in wanted or LOGS.get(name) in wanted}
