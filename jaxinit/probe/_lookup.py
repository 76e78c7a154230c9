"""Rows of a table of independent normal entries that is never formed: an embedding of which only the tokens present
are drawn, each the same wherever it occurs."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.lax import GatherScatterMode

from jaxinit._core.normals import vector
from jaxinit.implicit import _frames
from jaxinit.implicit._gradient import from_grams
from jaxinit.probe import equations
from jaxinit.probe._layout import exponent, power
from jaxinit.probe._rows import wide

__all__ = ["filled", "is_lookup", "look_up", "places", "tokens"]

_MODES = (GatherScatterMode.FILL_OR_DROP, GatherScatterMode.CLIP, GatherScatterMode.PROMISE_IN_BOUNDS)


def is_lookup(eqn: core.JaxprEqn) -> bool:
    """Whether a gather takes whole rows, one for each index."""
    d, (table, index) = eqn.params["dimension_numbers"], (equations.aval(v) for v in eqn.invars)
    rest = tuple(range(index.ndim - 1, index.ndim - 1 + table.ndim - 1))
    return (
        (d.offset_dims, d.collapsed_slice_dims, d.start_index_map) == (rest, (0,), (0,))
        and not d.operand_batching_dims
        and tuple(eqn.params["slice_sizes"]) == (1, *table.shape[1:])
        and GatherScatterMode.from_any(eqn.params["mode"]) in _MODES
    )


def places(eqn: core.JaxprEqn, index: Any) -> tuple[Any, Any]:
    """Which rows of the table a lookup takes, within it; and which of them were asked for within it."""
    rows, flat = equations.aval(eqn.invars[0]).shape[0], index.reshape(-1)
    return jnp.clip(flat, 0, rows - 1), (flat >= 0) & (flat < rows)


def filled(eqn: core.JaxprEqn, y: Any, inside: Any) -> Any:
    """Rows looked up, those asked for outside the table as the lookup has them."""
    if GatherScatterMode.from_any(eqn.params["mode"]) != GatherScatterMode.FILL_OR_DROP:
        return y
    fill = eqn.params["fill_value"]
    return jnp.where(inside[:, None], y, jnp.nan if fill is None else fill)


def look_up(eqn: core.JaxprEqn, stddev: float, key: Any, probe: Any, index: Any) -> Any:
    """The value of the equation, for a table of N(0, stddev^2) entries that `key` names."""
    table, out = equations.aval(eqn.invars[0]), equations.aval(eqn.outvars[0])
    kept, inside = places(eqn, index)
    dropped = GatherScatterMode.from_any(eqn.params["mode"]) == GatherScatterMode.FILL_OR_DROP
    y = _rows(key, probe, kept, inside | (not dropped), table.size // table.shape[0], stddev)
    return filled(eqn, y, inside).reshape(out.shape).astype(out.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _rows(key: Any, probe: Any, index: Any, used: Any, n: int, stddev: float) -> Any:
    return stddev * _drawn(key, index, n)


def _drawn(key: Any, index: Any, n: int) -> Any:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index.astype(jnp.uint32))
    return jax.vmap(lambda k: vector(k, n))(keys)


def _forward(key: Any, probe: Any, index: Any, used: Any, n: int, stddev: float) -> tuple[Any, Any]:
    normals = _drawn(key, index, n)
    return stddev * normals, (index, used, jnp.sum(jnp.square(normals), axis=1))


def _backward(n: int, stddev: float, saved: Any, d: Any) -> tuple[None, Any, None, None]:
    index, used, squares = saved
    same = ((index[:, None] == index[None]) & used[:, None] & used[None]).astype(jnp.float32)
    # A row that occurs k times counts 1/k each time; its gradient is the sum of the cotangents of all.
    share = jnp.where(used, 1 / jnp.maximum(jnp.sum(same, axis=1), 1), 0)
    d = wide(d)
    scale = exponent(jnp.max(jnp.abs(d)))
    d = d * power(-scale, d.dtype)
    size = jnp.sqrt(from_grams(same, _frames.gram(d, d))) * power(scale, d.dtype)
    return (
        None,
        jnp.stack([n * jnp.sum(share), jnp.sum(share * squares), size]).astype(jnp.float32),
        None,
        None,
    )


_rows.defvjp(_forward, _backward)


def tokens(eqn: core.JaxprEqn) -> tuple[int, int]:
    """Of a lookup: how many rows it takes, and how many there are."""
    return math.prod(equations.aval(eqn.invars[1]).shape[:-1]), equations.aval(eqn.invars[0]).shape[0]
