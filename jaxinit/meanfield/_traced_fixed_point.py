"""The fixed point of the length map inside a compiled program, differentiable by the implicit function theorem."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core import checks
from jaxinit.activations import Activation
from jaxinit.activations._catalogue import resolve
from jaxinit.activations._panels import jumps
from jaxinit.meanfield._fixed_point import _homogeneity, scan
from jaxinit.meanfield._maps import second_moment
from jaxinit.meanfield._solvers import brackets, length_table, solve_correlation, solve_length
from jaxinit.meanfield._table import Table, at_length, lengths, ratio, table


def fixed_point_q(
    activation: Any, weight_variance: Any, bias_variance: Any = 0.0, *, q0: float = 1.0
) -> jax.Array:
    """q* as an array: traceable, differentiable, broadcast over weight and bias variances.

        q* = Q(q*),     dq* = (E[phi^2] d sigma_w^2 + d sigma_b^2) / (1 - chi_q)

    Together with `chi` this differentiates depth scales; `fixed_point` tells a single point to 1e-12, with c* and a
    status.

    Args:
        activation: name, callable or Activation, continuous.
        weight_variance: sigma_w^2, a number or an array.
        bias_variance: sigma_b^2, likewise.
        q0: where the length starts.

    Returns:
        q* in the common floating dtype, inf where the signal diverges, 0 where it dies out. Accurate to about 1e-5
        in float32 and 1e-10 in float64, divided by 1 - chi_q. Its integrals are tabulated on the first call for an
        activation (about a second).

    Raises:
        ValueError, TypeError: phi jumps, or a variance is no number of at least 0 (in arrays nan passes, as nan).

    Example:
        >>> import jax
        >>> from jaxinit.meanfield import fixed_point_q
        >>> value, slope = jax.value_and_grad(lambda w: fixed_point_q("tanh", w, 0.05))(1.76095)
        >>> round(float(value), 4), round(float(slope), 3)
        (0.57, 0.613)
    """
    where = "fixed_point_q"
    activation = resolve(where, activation)
    if jumps(activation):
        raise checks.bad(where, "activation", "continuous", activation, "Where phi jumps, use fixed_point.")
    q0 = float(checks.number(where, "q0", q0, above=0.0))
    weight_variance = checks.reals(where, "weight_variance", weight_variance, at_least=0.0)
    bias_variance = checks.reals(where, "bias_variance", bias_variance, at_least=0.0)
    dtype = jnp.result_type(weight_variance, bias_variance, float)
    sw2, sb2 = (jnp.asarray(v, dtype=dtype) for v in (weight_variance, bias_variance))
    shape = jnp.broadcast_shapes(sw2.shape, sb2.shape)
    sw2, sb2 = (jnp.broadcast_to(v, shape).reshape(-1) for v in (sw2, sb2))
    share = _homogeneity(activation)
    found = _solve(activation, q0, sw2, sb2) if share is None else _line(share, q0, sw2, sb2)
    return found.reshape(shape)


def fixed_point_one_minus_c(
    activation: Any,
    weight_variance: Any,
    bias_variance: Any = 0.0,
    *,
    q0: float = 1.0,
    lengths_between: tuple[float, float] = (0.01, 16.0),
) -> jax.Array:
    """1 - c* as an array: traceable, differentiable, broadcast over weight and bias variances.

        1 - c* = sigma_w^2 R,    R = E[(phi(u) - phi(v))^2] / (2 q*),     u, v ~ N(0, q*) of correlation c*

    0 in the ordered phase; in the chaotic one by Newton steps in log(1 - c), with the derivatives of the implicit
    function theorem, those of q* included.

    Args:
        activation, weight_variance, bias_variance, q0: as in `fixed_point_q`.
        lengths_between: the range of q* for which the integrals over pairs are tabulated, on the first call with a
            dtype: about a second for each factor 4. Chaotic points with q* outside give nan.

    Returns:
        1 - c* in the common floating dtype; nan where q* is 0 or inf. Accurate to about 1e-5 in float32 and 1e-9 in
        float64, divided by 1 - chi_c; `fixed_point` tells a single point to 1e-10.

    Raises:
        ValueError: phi jumps, or `lengths_between` is not a range of positive numbers.

    Example:
        >>> import jax
        >>> from jaxinit.meanfield import fixed_point_one_minus_c
        >>> value, slope = jax.value_and_grad(lambda w: fixed_point_one_minus_c("tanh", w, 0.05))(2.25)
        >>> round(float(value), 4), round(float(slope), 3)
        (0.4328, 0.576)
    """
    where = "fixed_point_one_minus_c"
    activation = resolve(where, activation)
    if not isinstance(lengths_between, (tuple, list)) or len(lengths_between) != 2:
        raise checks.wrong_type(where, "lengths_between", "a pair (low, high)", lengths_between)
    low, high = (float(checks.number(where, "lengths_between", v, above=0.0)) for v in lengths_between)
    if not low < high:
        raise checks.bad(where, "lengths_between", "(low, high) with low < high", lengths_between)
    weight_variance = checks.reals(where, "weight_variance", weight_variance, at_least=0.0)
    bias_variance = checks.reals(where, "bias_variance", bias_variance, at_least=0.0)
    q0 = float(checks.number(where, "q0", q0, above=0.0))
    q = fixed_point_q(activation, weight_variance, bias_variance, q0=q0)
    shape = q.shape
    sw2 = jnp.broadcast_to(jnp.asarray(weight_variance, q.dtype), shape).reshape(-1)
    q = q.reshape(-1)
    if _homogeneity(activation) is not None:  # chaotic only where q* is infinite
        return jnp.where((q > 0.0) & jnp.isfinite(q), 0.0 * sw2, jnp.nan).reshape(shape)
    return _one_minus_c(activation, (low, high), sw2, q).reshape(shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@functools.partial(jax.jit, static_argnums=(0, 1))
def _one_minus_c(
    activation: Activation, between: tuple[float, float], sw2: jax.Array, q: jax.Array
) -> jax.Array:
    held = _held(length_table(activation), q.dtype)
    pairs = _held(table(activation, *between), q.dtype)
    edge = 1.0 + 8 * jnp.finfo(q.dtype).eps

    def point(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        sw2, q = pair
        inside = jnp.clip(q, *between)
        chi_1 = sw2 * lengths(held, jnp.where((q > 0.0) & jnp.isfinite(q), q, inside))[2]
        x, _ = solve_correlation(at_length(pairs, inside), sw2, chi_1)
        chaotic = jnp.where(inside == q, jnp.exp(x), jnp.nan)
        found = jnp.where(chi_1 > edge, chaotic, 0.0)
        return jnp.where((q > 0.0) & jnp.isfinite(q), found, jnp.nan)

    return jax.lax.map(point, (sw2, q), batch_size=512)


@_one_minus_c.defjvp
def _one_minus_c_jvp(
    activation: Activation, between: tuple[float, float], primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    epsilon = _one_minus_c(activation, between, *primals)
    pairs = _held(table(activation, *between), epsilon.dtype)

    def rest(sw2: jax.Array, q: jax.Array, epsilon: jax.Array) -> jax.Array:
        return jnp.log(sw2 * ratio(at_length(pairs, q), epsilon)[0])

    def slope(sw2: jax.Array, q: jax.Array, epsilon: jax.Array, dsw2: jax.Array, dq: jax.Array) -> jax.Array:
        _, moved = jax.jvp(lambda w, q: rest(w, q, epsilon), (sw2, q), (dsw2, dq))
        value, slopes = ratio(at_length(pairs, q), epsilon)
        return -epsilon * moved / (slopes / value - 1.0)

    sw2, q = primals
    chaotic = epsilon > 0.0
    safe = jnp.where(chaotic, epsilon, 0.5), jnp.where(chaotic, q, between[0])
    moved = jax.vmap(slope)(sw2, safe[1], safe[0], *tangents)
    return epsilon, jnp.where(chaotic, moved, jnp.where(jnp.isnan(epsilon), jnp.nan, 0.0))


def _line(share: float, q0: float, sw2: jax.Array, sb2: jax.Array) -> jax.Array:
    """Homogeneous phi: q* = sigma_b^2 / (1 - share sigma_w^2)."""
    slope = share * sw2
    room = 1.0 - slope
    finite = room > 0.0
    q = jnp.where(finite, sb2 / jnp.where(finite, room, 1.0), jnp.inf)
    marginal = (jnp.abs(room) <= 2 * jnp.finfo(slope.dtype).eps) & (sb2 == 0.0)
    return jnp.where(marginal, jnp.asarray(q0, q.dtype), q)


def _held(held: Table, dtype: Any) -> Table:
    return Table(*(jnp.asarray(v, dtype=dtype) for v in held))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@functools.partial(jax.jit, static_argnums=(0, 1))
def _solve(activation: Activation, q0: float, sw2: jax.Array, sb2: jax.Array) -> jax.Array:
    held, grid = _held(length_table(activation), sw2.dtype), brackets(activation)
    places, second = (jnp.asarray(v, dtype=sw2.dtype) for v in (grid.q, grid.second))
    start = jnp.asarray(min(max(q0, float(grid.q[0])), float(grid.q[-1])), sw2.dtype)
    from_zero = jnp.asarray(second_moment(activation, 0.0), sw2.dtype)
    return jax.lax.map(
        lambda pair: solve_length(held, places, second, from_zero, start, *pair)[0],
        (sw2, sb2),
        batch_size=512,
    )


@_solve.defjvp
def _solve_jvp(activation: Activation, q0: float, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    sw2, _ = primals
    q = _solve(activation, q0, *primals)
    grid = scan(activation)
    inside = jnp.clip(q, math.nextafter(float(grid.q[0]), 1.0), float(grid.q[-1]))
    v, growth, _ = jax.vmap(lengths, in_axes=(None, 0))(_held(length_table(activation), q.dtype), inside)
    v = jnp.where(q > 0.0, v, second_moment(activation, 0.0))
    slope = (v * tangents[0] + tangents[1]) / (1.0 - sw2 * growth)
    return q, jnp.where(jnp.isfinite(q), slope, jnp.nan)
