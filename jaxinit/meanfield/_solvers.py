"""Fixed points of one network inside a compiled program: bracketed Newton iterations on tabulated integrals."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.activations import Activation
from jaxinit.activations._host import float64
from jaxinit.meanfield._fixed_point import scan
from jaxinit.meanfield._table import Table, lengths, ratio, table

_FINER = 8  # places looked at between two of `scan`


class Brackets(NamedTuple):
    """Lengths and E[phi^2] there, close enough to bracket the fixed points one by one."""

    q: np.ndarray
    second: np.ndarray


@functools.lru_cache(maxsize=64)
def length_table(activation: Activation) -> Table:
    """The table of everything that depends on q alone, wherever phi is resolved."""
    grid = scan(activation)
    return table(activation, float(grid.q[0]), float(grid.q[-1]), pairs=False)


@functools.lru_cache(maxsize=64)
def brackets(activation: Activation) -> Brackets:
    """Places a factor 1.036 apart: two fixed points that are closer may be passed over together."""
    q = scan(activation).q
    logs = np.interp(np.arange(_FINER * (len(q) - 1) + 1) / _FINER, np.arange(len(q)), np.log(q))
    fine = np.exp(logs)
    fine[::_FINER] = q
    with float64():
        second = np.asarray(second_moments(length_table(activation), fine))
    return Brackets(fine, second)


@jax.jit
def second_moments(held: Table, q: jax.Array) -> jax.Array:
    """E[phi^2] at many q."""
    return jax.vmap(lambda one: lengths(held, one)[0])(q)


def solve_length(
    held: Table, grid: Any, second: Any, from_zero: Any, q0: Any, sw2: Any, sb2: Any
) -> tuple[jax.Array, jax.Array]:
    """q* reached from q0 (0 or inf where there is none), and the last place its search looked at; scalars.

    `grid`, `second`: lengths and E[phi^2] there, which bracket q*; `from_zero`: phi(0)^2.
    """

    def excess(q: jax.Array) -> tuple[jax.Array, jax.Array]:
        v, growth, _ = lengths(held, q)
        return sw2 * v + sb2 - q, sw2 * growth - 1.0

    values = sw2 * second + sb2 - grid
    up = excess(q0)[0] >= 0.0
    ahead = (grid > q0) & (values <= 0.0)
    behind = (grid < q0) & (values >= 0.0)
    stop = jnp.argmax(ahead)
    start = grid.shape[0] - 1 - jnp.argmax(behind[::-1])
    floor = 0.5 * (sb2 + sw2 * from_zero)
    lo_up = jnp.maximum(grid[jnp.maximum(stop - 1, 0)], q0)
    hi_down = jnp.minimum(grid[jnp.minimum(start + 1, grid.shape[0] - 1)], q0)
    lo_down = jnp.where(behind.any(), grid[start], jnp.maximum(floor, jnp.finfo(grid.dtype).tiny))
    lo, hi = jnp.where(up, lo_up, lo_down), jnp.where(up, grid[stop], hi_down)
    lo = jnp.minimum(lo, hi)

    def step(_: Any, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        lo, hi, q = state
        value, slope = excess(q)
        lo, hi = jnp.where(value > 0.0, q, lo), jnp.where(value > 0.0, hi, q)
        new = q - value / slope
        return lo, hi, jnp.where((new >= lo) & (new <= hi), new, jnp.sqrt(lo) * jnp.sqrt(hi))

    _, _, q = jax.lax.fori_loop(0, 40, step, (lo, hi, jnp.sqrt(lo) * jnp.sqrt(hi)))
    none_above = up & ~ahead.any()
    none_below = ~up & ~behind.any() & (floor == 0.0)
    return jnp.where(none_above, jnp.inf, jnp.where(none_below, 0.0, q)), q


def solve_correlation(
    coefficients: jax.Array, sw2: jax.Array, chi_1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """log(1 - c*) for chi_1 > 1, and the slope there, in that logarithm, of log(sigma_w^2 R).

    The root of sigma_w^2 R(q, t) = 1, which falls with t; `coefficients` from `at_length`.
    """
    dtype = coefficients.dtype

    def f(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, slopes = ratio(coefficients, jnp.exp(x))
        return jnp.log(sw2 * value), slopes / value - 1.0

    smallest = jnp.asarray(jnp.finfo(dtype).eps, dtype) ** 1.5
    above = chi_1 - 1.0  # 1 - c* is of its order for a smooth phi, of that of its square for one with kinks
    lo = jnp.log(jnp.clip(1e-3 * jnp.minimum(above, above * above), smallest, 0.5))
    hi = jnp.zeros_like(lo)

    def step(_: Any, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        lo, hi, x = state
        value, slope = f(x)
        lo, hi = jnp.where(value > 0.0, x, lo), jnp.where(value > 0.0, hi, x)
        new = x - value / slope
        return lo, hi, jnp.where((new >= lo) & (new <= hi), new, 0.5 * (lo + hi))

    _, _, x = jax.lax.fori_loop(0, 40, step, (lo, hi, jnp.maximum(lo, hi - 1.0)))
    x = jnp.where(f(hi)[0] >= -500.0 * jnp.finfo(dtype).eps, 0.0, x)
    return x, f(x)[1]
