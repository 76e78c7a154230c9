"""The fixed point of the length map inside a compiled program, differentiable by the implicit function theorem."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core import checks
from jaxinit.activations import Activation, get
from jaxinit.activations._panels import jumps
from jaxinit.meanfield._fixed_point import _homogeneity, scan
from jaxinit.meanfield._maps import second_moment
from jaxinit.meanfield._phase_diagram import solve_length
from jaxinit.meanfield._table import Table, lengths, table


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
        ValueError: phi jumps.

    Example:
        >>> import jax
        >>> from jaxinit.meanfield import fixed_point_q
        >>> value, slope = jax.value_and_grad(lambda w: fixed_point_q("tanh", w, 0.05))(1.76095)
        >>> round(float(value), 4), round(float(slope), 3)
        (0.57, 0.613)
    """
    where = "fixed_point_q"
    activation = get(activation)
    if jumps(activation):
        raise checks.bad(where, "activation", "continuous", activation, "Where phi jumps, use fixed_point.")
    q0 = float(checks.number(where, "q0", q0, above=0.0))
    dtype = jnp.result_type(weight_variance, bias_variance, float)
    sw2, sb2 = (jnp.asarray(v, dtype=dtype) for v in (weight_variance, bias_variance))
    shape = jnp.broadcast_shapes(sw2.shape, sb2.shape)
    sw2, sb2 = (jnp.broadcast_to(v, shape).reshape(-1) for v in (sw2, sb2))
    share = _homogeneity(activation)
    found = _solve(activation, q0, sw2, sb2) if share is None else _line(share, q0, sw2, sb2)
    return found.reshape(shape)


def _line(share: float, q0: float, sw2: jax.Array, sb2: jax.Array) -> jax.Array:
    """Homogeneous phi: q* = sigma_b^2 / (1 - share sigma_w^2)."""
    slope = share * sw2
    room = 1.0 - slope
    finite = room > 0.0
    q = jnp.where(finite, sb2 / jnp.where(finite, room, 1.0), jnp.inf)
    marginal = (jnp.abs(room) <= 2 * jnp.finfo(slope.dtype).eps) & (sb2 == 0.0)
    return jnp.where(marginal, jnp.asarray(q0, q.dtype), q)


@functools.lru_cache(maxsize=64)
def _table(activation: Activation) -> Table:
    grid = scan(activation)
    return table(activation, float(grid.q[0]), float(grid.q[-1]), pairs=False)


def _held(activation: Activation, dtype: Any) -> Table:
    return Table(*(jnp.asarray(v, dtype=dtype) for v in _table(activation)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@functools.partial(jax.jit, static_argnums=(0, 1))
def _solve(activation: Activation, q0: float, sw2: jax.Array, sb2: jax.Array) -> jax.Array:
    held, grid = _held(activation, sw2.dtype), scan(activation)
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
    v, growth, _ = jax.vmap(lengths, in_axes=(None, 0))(_held(activation, q.dtype), inside)
    v = jnp.where(q > 0.0, v, second_moment(activation, 0.0))
    slope = (v * tangents[0] + tangents[1]) / (1.0 - sw2 * growth)
    return q, jnp.where(jnp.isfinite(q), slope, jnp.nan)
