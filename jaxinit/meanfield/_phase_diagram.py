"""Phase diagrams: the fixed points of thousands of networks in one compiled program."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.activations import Activation, get
from jaxinit.activations._host import float64
from jaxinit.activations._panels import jumps
from jaxinit.meanfield._fixed_point import _CRITICAL, _homogeneity, scan
from jaxinit.meanfield._maps import second_moment, slope_second_moment
from jaxinit.meanfield._table import Table, at_length, lengths, ratio, table
from jaxinit.records import provenance
from jaxinit.records._phase_diagram import PhaseDiagram

_BATCH = 512


def phase_diagram(
    activation: Any, weight_variances: Any, bias_variances: Any, *, q0: float = 1.0
) -> PhaseDiagram:
    """Fixed points over the grid weight_variances x bias_variances, with the edge of chaos.

    The integrals are tabulated once for the activation (see `fixed_point` for a single point to 1e-10); the grid
    itself, q*, chi_1, c*, xi_c by bracketed Newton iterations, is one compiled program in float64. Two fixed
    points closer than a third in q may be passed over together; `all_fixed_points` finds them.

    Args:
        activation: name, callable or Activation, continuous.
        weight_variances: 1-D, sigma_w^2, at least 0.
        bias_variances: 1-D, sigma_b^2, at least 0.
        q0: where the length starts.

    Returns:
        `PhaseDiagram`, accurate to about 1e-9 for smooth activations and 1e-7 for kinked ones.

    References:
        Poole et al. 2016, fig. 1; Schoenholz et al. 2017, fig. 1.

    Example:
        >>> from jaxinit.meanfield import phase_diagram
        >>> diagram = phase_diagram("tanh", [0.5, 4.0], [0.05, 0.2])
        >>> diagram.phase.tolist()
        [['ordered', 'ordered'], ['chaotic', 'chaotic']]
    """
    where = "phase_diagram"
    activation = get(activation)
    if jumps(activation):
        raise checks.bad(where, "activation", "continuous", activation, "Where phi jumps, chi_1 is infinite.")
    sw2 = _axis(where, "weight_variances", weight_variances)
    sb2 = _axis(where, "bias_variances", bias_variances)
    q0 = float(checks.number(where, "q0", q0, above=0.0))
    w, b = (v.ravel() for v in np.meshgrid(sw2, sb2, indexing="ij"))
    if _homogeneity(activation) is None:
        q, chi_q, chi_1 = _solve_lengths(activation, w, b, q0)
        zero = q == 0.0
        status = np.where(np.isinf(q), "diverges", np.where(zero, "zero", "stable"))
        status[(np.abs(chi_q) > 1.0) & (status != "diverges")] = "unstable"
    else:
        q, chi_q, chi_1, status = _homogeneous(activation, w, b, q0)
    epsilon, chi_c = _solve_correlations(activation, w, q, chi_1)
    phase = np.where(
        np.abs(chi_1 - 1.0) <= _CRITICAL, "critical", np.where(chi_1 < 1.0, "ordered", "chaotic")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        xi_q, xi_c = (np.where(s == 1.0, np.inf, -1.0 / np.log(np.abs(s))) for s in (chi_q, chi_c))
    line = _line(activation, sw2, sb2)
    fields = {
        "q": q, "chi_q": chi_q, "chi_1": chi_1, "c": 1.0 - epsilon, "one_minus_c": epsilon, "chi_c": chi_c,
        "xi_q": xi_q, "xi_c": xi_c, "phase": phase, "status": status,
    }  # fmt: skip
    shaped = {k: v.reshape(len(sw2), len(sb2)) for k, v in fields.items()}
    return PhaseDiagram(
        activation.name, sw2, sb2, **shaped, critical_weight_variance=line[0], critical_bias_variance=line[1],
        config={"activation": repr(activation), "q0": q0}, provenance=provenance(),
    )  # fmt: skip


def _axis(where: str, name: str, values: Any) -> np.ndarray:
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or array.size == 0:
        raise checks.bad(where, name, "a 1-D sequence of variances", np.shape(values))
    if not (np.isfinite(array) & (array >= 0.0)).all():
        raise checks.bad(where, name, "finite and at least 0", array[~(array >= 0.0)][:3].tolist())
    return array


def _homogeneous(
    activation: Activation, w: np.ndarray, b: np.ndarray, q0: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    slope = w * float(_homogeneity(activation) or 0.0)
    slope = np.where(np.abs(slope - 1.0) < 4e-15, 1.0, slope)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(slope < 1.0, b / (1.0 - slope), np.inf)
    marginal = (slope == 1.0) & (b == 0.0)
    q[marginal] = q0
    status = np.where(np.isinf(q), "diverges", np.where(q == 0.0, "zero", "stable"))
    return q, slope, slope.copy(), np.where(marginal, "marginal", status)


def _padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, (0, -len(values) % _BATCH), mode="edge")


def _solve_lengths(
    activation: Activation, w: np.ndarray, b: np.ndarray, q0: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    grid = scan(activation)
    low, high = float(grid.q[0]), float(grid.q[-1])
    held = table(activation, low, high, pairs=False)
    from_zero = second_moment(activation, 0.0)
    with float64():
        found = _lengths_program(held, grid.q, grid.second, from_zero, q0, _padded(w), _padded(b))
        q, chi_q, chi_1 = (np.asarray(v)[: len(w)].copy() for v in found)
    at_zero = q == 0.0
    chi_1[at_zero] = w[at_zero] * slope_second_moment(activation, 0.0)
    chi_q[at_zero] = chi_1[at_zero]
    far = np.isinf(q)
    chi_1[far], chi_q[far] = w[far] * grid.slope[-1], w[far] * grid.growth[-1]
    return q, chi_q, chi_1


@jax.jit
def _lengths_program(
    held: Table,
    grid: jax.Array,
    second: jax.Array,
    from_zero: jax.Array,
    q0: jax.Array,
    w: jax.Array,
    b: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q* (0 or inf where there is none), chi_q and chi_1 for many (sigma_w^2, sigma_b^2)."""

    def point(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        sw2, sb2 = pair
        q, inside = solve_length(held, grid, second, from_zero, q0, sw2, sb2)
        _, growth, slope = lengths(held, inside)
        return q, sw2 * growth, sw2 * slope

    return jax.lax.map(point, (w, b), batch_size=_BATCH)


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


def _solve_correlations(
    activation: Activation, w: np.ndarray, q: np.ndarray, chi_1: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    defined = np.isfinite(q) & (q > 0.0)
    epsilon = np.where(defined, 0.0, np.nan)
    chi_c = np.where(defined, chi_1, np.nan)
    chaotic = np.flatnonzero(defined & (chi_1 > 1.0 + 1e-12))
    if chaotic.size:
        held = table(activation, float(q[chaotic].min()), float(q[chaotic].max()))
        with float64():
            found = _correlations_program(held, *(_padded(v[chaotic]) for v in (w, q, chi_1)))
            epsilon[chaotic], chi_c[chaotic] = (np.asarray(v)[: chaotic.size] for v in found)
    return epsilon, chi_c


@jax.jit
def _correlations_program(
    held: Table, w: jax.Array, q: jax.Array, chi_1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """1 - c* and chi_c for points with chi_1 > 1: the root of sigma_w^2 R(q, t) = 1, which falls with t."""

    def point(triple: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        sw2, length, chi_1 = triple
        coefficients = at_length(held, length)

        def f(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            value, slopes = ratio(coefficients, jnp.exp(x))
            return jnp.log(sw2 * value), slopes / value - 1.0

        lo = jnp.log(jnp.minimum(0.5, 1e-3 * (chi_1 - 1.0)))
        hi = jnp.zeros_like(lo)

        def step(
            _: Any, state: tuple[jax.Array, jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            lo, hi, x = state
            value, slope = f(x)
            lo, hi = jnp.where(value > 0.0, x, lo), jnp.where(value > 0.0, hi, x)
            new = x - value / slope
            return lo, hi, jnp.where((new >= lo) & (new <= hi), new, 0.5 * (lo + hi))

        _, _, x = jax.lax.fori_loop(0, 40, step, (lo, hi, jnp.maximum(lo, hi - 1.0)))
        at_one = f(hi)[0] >= -1e-13
        epsilon = jnp.where(at_one, 1.0, jnp.exp(x))
        return epsilon, sw2 * ratio(coefficients, epsilon)[1]

    return jax.lax.map(point, (w, q, chi_1), batch_size=_BATCH)


def _line(activation: Activation, sw2: np.ndarray, sb2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edge of chaos (chi_1 = 1 at a stable fixed point) as a curve through the grid's rectangle."""
    grid = scan(activation)
    homogeneous = _homogeneity(activation)
    if homogeneous is not None:
        return np.asarray([1.0 / homogeneous]), np.zeros(1)
    q = np.exp(np.linspace(math.log(1e-8), math.log(min(1e6, float(grid.q[-1]))), 800))
    held = table(activation, 1e-8, float(q[-1]), pairs=False)
    with float64():
        v, growth, x = (np.asarray(a) for a in _line_program(held, q))
    with np.errstate(divide="ignore", invalid="ignore"):
        line_w, line_b, chi_q = 1.0 / x, q - v / x, growth / x
    wanted = (line_b >= -1e-14 * q) & (line_b <= sb2.max()) & (np.abs(chi_q) < 1.0)
    wanted &= (line_w >= sw2.min()) & (line_w <= sw2.max())
    return line_w[wanted], np.maximum(line_b[wanted], 0.0)


_line_program = jax.jit(jax.vmap(lengths, in_axes=(None, 0)))
