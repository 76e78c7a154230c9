"""Phase diagrams: the fixed points of thousands of networks in one compiled program."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.activations import Activation
from jaxinit.activations._catalogue import resolve
from jaxinit.activations._host import float64
from jaxinit.activations._panels import jumps
from jaxinit.meanfield._fixed_point import _CRITICAL, _homogeneity, scan
from jaxinit.meanfield._maps import second_moment, slope_second_moment, variances
from jaxinit.meanfield._solvers import brackets, length_table, solve_correlation, solve_length
from jaxinit.meanfield._table import Table, at_length, length_tails, lengths, pair_tail, ratio, table
from jaxinit.records import provenance
from jaxinit.records._phase_diagram import PhaseDiagram

_BATCH = 512
_FLOOR = 1e-14  # relative error of an integral at best


def phase_diagram(
    activation: Any, weight_variances: Any, bias_variances: Any, *, q0: float = 1.0
) -> PhaseDiagram:
    """Fixed points over the grid weight_variances x bias_variances, with the edge of chaos.

    The integrals are tabulated once for the activation (see `fixed_point` for a single point to 1e-10); the grid
    itself, q*, chi_1, c*, xi_c by bracketed Newton iterations, is one compiled program in float64. Two fixed
    points within 4 % of each other in q may be passed over together; `all_fixed_points` finds them.

    Args:
        activation: name, callable or Activation, continuous.
        weight_variances: 1-D, sigma_w^2, at least 0.
        bias_variances: 1-D, sigma_b^2, at least 0.
        q0: where the length starts.

    Returns:
        `PhaseDiagram`, accurate to about 1e-9 for smooth activations and 1e-7 for kinked ones; `q_error`, `c_error`
        and `xi_c_error` estimate it point by point, from the tail of the tables through the derivatives of the maps
        (near the edge of chaos, where c* and xi_c are ill-conditioned, they grow).

    References:
        Poole et al. 2016; Schoenholz et al. 2017.

    Example:
        >>> from jaxinit.meanfield import phase_diagram
        >>> diagram = phase_diagram("tanh", [0.5, 4.0], [0.05, 0.2])
        >>> diagram.phase.tolist()
        [['ordered', 'ordered'], ['chaotic', 'chaotic']]
    """
    where = "phase_diagram"
    activation = resolve(where, activation)
    if jumps(activation):
        raise checks.bad(where, "activation", "continuous", activation, "Where phi jumps, chi_1 is infinite.")
    sw2 = variances(where, "weight_variances", weight_variances)
    sb2 = variances(where, "bias_variances", bias_variances)
    q0 = float(checks.number(where, "q0", q0, above=0.0))
    w, b = (v.ravel() for v in np.meshgrid(sw2, sb2, indexing="ij"))
    if _homogeneity(activation) is None:
        at = _solve_lengths(activation, w, b, q0)
        status = np.where(np.isinf(at.q), "diverges", np.where(at.q == 0.0, "zero", "stable"))
        status[(np.abs(at.chi_q) > 1.0) & (status != "diverges")] = "unstable"
    else:
        at, status = _homogeneous(activation, w, b, q0)
    q, chi_q, chi_1 = at.q, at.chi_q, at.chi_1
    epsilon, chi_c, error, xi_c_error = _solve_correlations(activation, w, at)
    phase = np.where(
        np.abs(chi_1 - 1.0) <= _CRITICAL, "critical", np.where(chi_1 < 1.0, "ordered", "chaotic")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        xi_q, xi_c = (np.where(s == 1.0, np.inf, -1.0 / np.log(np.abs(s))) for s in (chi_q, chi_c))
    line = _line(activation, sw2, sb2)
    fields = {
        "q": q, "chi_q": chi_q, "chi_1": chi_1, "c": 1.0 - epsilon, "one_minus_c": epsilon, "chi_c": chi_c,
        "xi_q": xi_q, "xi_c": xi_c, "phase": phase, "status": status,
        "q_error": at.q_error, "c_error": error, "xi_c_error": xi_c_error,
    }  # fmt: skip
    shaped = {k: v.reshape(len(sw2), len(sb2)) for k, v in fields.items()}
    return PhaseDiagram(
        activation.name, sw2, sb2, **shaped, critical_weight_variance=line[0], critical_bias_variance=line[1],
        config={"activation": repr(activation), "q0": q0}, provenance=provenance(),
    )  # fmt: skip


def _homogeneous(
    activation: Activation, w: np.ndarray, b: np.ndarray, q0: float
) -> tuple[_Lengths, np.ndarray]:
    slope = w * float(_homogeneity(activation) or 0.0)
    slope = np.where(np.abs(slope - 1.0) < 4e-15, 1.0, slope)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(slope < 1.0, b / (1.0 - slope), np.inf)
    marginal = (slope == 1.0) & (b == 0.0)
    q[marginal] = q0
    status = np.where(np.isinf(q), "diverges", np.where(q == 0.0, "zero", "stable"))
    error = np.full_like(q, _FLOOR)
    return _Lengths(q, error, slope, slope.copy(), error), np.where(marginal, "marginal", status)


def _padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, (0, -len(values) % _BATCH), mode="edge")


class _Lengths(NamedTuple):
    """q* with its relative error, the slopes there, and the relative error of chi_1; one entry a point."""

    q: Any
    q_error: Any
    chi_q: Any
    chi_1: Any
    chi_1_error: Any


class _Correlations(NamedTuple):
    """1 - c* and the slope there, the absolute error of the former and the relative one of xi_c."""

    epsilon: Any
    chi_c: Any
    error: Any
    xi_c_error: Any


def _solve_lengths(activation: Activation, w: np.ndarray, b: np.ndarray, q0: float) -> _Lengths:
    grid, held, places = scan(activation), length_table(activation), brackets(activation)
    from_zero = second_moment(activation, 0.0)
    with float64():
        found = _lengths_program(held, places.q, places.second, from_zero, q0, _padded(w), _padded(b))
        found = _Lengths(*(np.asarray(v)[: len(w)].copy() for v in found))
    at_zero, far = found.q == 0.0, np.isinf(found.q)
    found.chi_1[at_zero] = w[at_zero] * slope_second_moment(activation, 0.0)
    found.chi_q[at_zero] = found.chi_1[at_zero]
    found.chi_1[far], found.chi_q[far] = w[far] * grid.slope[-1], w[far] * grid.growth[-1]
    found.q_error[at_zero | far] = found.chi_1_error[at_zero | far] = 0.0
    return found


@jax.jit
def _lengths_program(
    held: Table,
    grid: jax.Array,
    second: jax.Array,
    from_zero: jax.Array,
    q0: jax.Array,
    w: jax.Array,
    b: jax.Array,
) -> _Lengths:
    """q* (0 or inf where there is none), chi_q and chi_1 for many (sigma_w^2, sigma_b^2)."""

    def point(pair: tuple[jax.Array, jax.Array]) -> _Lengths:
        sw2, sb2 = pair
        q, inside = solve_length(held, grid, second, from_zero, q0, sw2, sb2)
        v, growth, slope = lengths(held, inside)
        v_error, slope_error = (_FLOOR + tail for tail in length_tails(held, inside))
        q_error = sw2 * v * v_error / (inside * jnp.abs(1.0 - sw2 * growth))
        return _Lengths(q, q_error, sw2 * growth, sw2 * slope, slope_error + q_error)

    return jax.lax.map(point, (w, b), batch_size=_BATCH)


def _solve_correlations(activation: Activation, w: np.ndarray, at: _Lengths) -> _Correlations:
    defined = np.isfinite(at.q) & (at.q > 0.0)
    # In the ordered phase c* = 1 exactly, unless the error of chi_1 leaves the phase open.
    sure = np.where(defined & (np.abs(at.chi_1 - 1.0) <= at.chi_1_error), np.inf, 0.0)
    with np.errstate(divide="ignore"):
        steepness = np.maximum(np.abs(np.log(at.chi_1)), 1e-300)
    out = _Correlations(
        np.where(defined, 0.0, np.nan),
        np.where(defined, at.chi_1, np.nan),
        np.where(defined, sure, np.nan),
        np.where(defined, np.maximum(sure, at.chi_1_error / steepness), np.nan),
    )
    chaotic = np.flatnonzero(defined & (at.chi_1 > 1.0 + 1e-12))
    if chaotic.size:
        held = table(activation, float(at.q[chaotic].min()), float(at.q[chaotic].max()))
        with float64():
            given = (_padded(v[chaotic]) for v in (w, at.q, at.q_error, at.chi_1))
            found = _correlations_program(held, *given)
            for kept, value in zip(out, found, strict=True):
                kept[chaotic] = np.asarray(value)[: chaotic.size]
    return out


@jax.jit
def _correlations_program(
    held: Table, w: jax.Array, q: jax.Array, q_error: jax.Array, chi_1: jax.Array
) -> _Correlations:
    """c* for points with chi_1 > 1. Errors: of the tables, and of q* through the derivatives with respect to it."""

    def point(given: tuple[jax.Array, ...]) -> _Correlations:
        sw2, length, length_error, chi_1 = given
        coefficients = at_length(held, length)
        x, slope = solve_correlation(coefficients, sw2, chi_1)
        epsilon = jnp.exp(x)

        def maps(log_q: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            value, slopes = ratio(at_length(held, jnp.exp(log_q)), jnp.exp(x))
            return jnp.log(value), jnp.log(slopes)

        (_, slopes), by_q = jax.jvp(lambda v: maps(v, x), (jnp.log(length),), (1.0,))
        _, by_x = jax.jvp(lambda v: maps(jnp.log(length), v), (x,), (1.0,))
        missed = _FLOOR + pair_tail(held, length) * sw2
        x_error = (missed + jnp.abs(by_q[0]) * length_error) / jnp.abs(slope)
        chi_c = sw2 * jnp.exp(slopes)
        chi_error = missed * 32 + jnp.abs(by_q[1]) * length_error + jnp.abs(by_x[1]) * x_error
        error = jnp.where(x_error < 1.0, epsilon * x_error, jnp.inf)
        return _Correlations(epsilon, chi_c, error, chi_error / jnp.abs(jnp.log(chi_c)))

    return jax.lax.map(point, (w, q, q_error, chi_1), batch_size=_BATCH)


def _line(activation: Activation, sw2: np.ndarray, sb2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edge of chaos (chi_1 = 1 at a stable fixed point) as a curve through the grid's rectangle."""
    grid = scan(activation)
    homogeneous = _homogeneity(activation)
    if homogeneous is not None:
        return (np.asarray([1.0 / homogeneous]), np.zeros(1)) if homogeneous else (np.zeros(0), np.zeros(0))
    q = np.exp(np.linspace(math.log(1e-8), math.log(min(1e6, float(grid.q[-1]))), 800))
    held = length_table(activation)
    with float64():
        v, growth, x = (np.asarray(a) for a in _line_program(held, q))
    with np.errstate(divide="ignore", invalid="ignore"):
        line_w, line_b, chi_q = 1.0 / x, q - v / x, growth / x
    wanted = (line_b >= -1e-14 * q) & (line_b <= sb2.max()) & (np.abs(chi_q) < 1.0)
    wanted &= (line_w >= sw2.min()) & (line_w <= sw2.max())
    return line_w[wanted], np.maximum(line_b[wanted], 0.0)


_line_program = jax.jit(jax.vmap(lengths, in_axes=(None, 0)))
