"""The sums of one place as a row of numbers, all places alike: reduced on the spot, in float32.

They are sums of products and maxima of sizes, with nothing to decide in between: compilers have fast reductions for
these, and write what is compared entry by entry to memory first. Of three indicators one array is made, and summed
once. Written for this area alone: theory, simulation and probe share no numerics.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.probe import equations
from jaxinit.probe._activation import Chain, largest_slope, value_and_slope
from jaxinit.probe._layout import Layout, exponent, power

__all__ = ["backward_row", "forward_row", "gated_row", "wide"]

#: A unit is saturated when |phi'| is below this share of its maximum.
SATURATED = 1e-2

#: Of the three indicators in one float32, each counts up to 255: together below 2^24, so that their sum is exact.
_BASE = 256


def forward_row(
    x: Any, batch_axis: int | None, layout: Layout, chain: Chain | None, gated: bool = False
) -> Any:
    """The row of a value; if it is gated, shares of flat units and of zeros are those of its gates, still to come."""
    slope, gated = 0.0 if chain is None else largest_slope(chain), gated and "flat" in layout.forward()
    return _forward(batch_axis, layout, _Same(chain), slope, gated)(jax.lax.stop_gradient(x))


def gated_row(row: Any, x: Any, layout: Layout, chain: Chain) -> Any:
    """The row with the shares of another of its gates, a nonlinearity of `x`: of several the largest stand."""
    return _gated(layout, _Same(chain), largest_slope(chain))(row, jax.lax.stop_gradient(x))


def backward_row(g: Any, batch_axis: int | None, layout: Layout) -> Any:
    """The row of a gradient."""
    return _backward(batch_axis, layout)(g)


class _Same:
    """A nonlinearity that equals another of the same program, so that what was traced for one serves both."""

    def __init__(self, chain: Chain | None) -> None:
        self.chain = chain
        self.text = "" if chain is None else str(chain.jaxpr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


# jit: one lowered function for all places of one shape; the program and its compilation are smaller for it.
@functools.lru_cache(maxsize=512)
def _forward(batch_axis: int | None, layout: Layout, same: _Same, largest: float, gated: bool) -> Any:
    wanted = layout.forward()

    def row(x: Any) -> Any:
        x = wide(x)
        cells = _cells(x, batch_axis, layout.examples)
        out = _signal(cells, _top(cells, layout), layout, wanted)
        if "flat" in wanted:
            out["flat"] = jnp.nan if gated else _activation(x, same.chain, largest)
        return _pack(out, wanted)

    return jax.jit(row)


@functools.lru_cache(maxsize=512)
def _gated(layout: Layout, same: _Same, largest: float) -> Any:
    entries, start = layout.forward(), 0
    for name in itertools.takewhile(lambda name: name != "flat", entries):
        start += entries[name]
    own = slice(start, start + entries["flat"])

    def row(row: Any, x: Any) -> Any:
        shares = _activation(wide(x), same.chain, largest).astype(row.dtype)
        return row.at[own].set(jnp.fmax(row[own], shares))

    return jax.jit(row)


@functools.lru_cache(maxsize=512)
def _backward(batch_axis: int | None, layout: Layout) -> Any:
    wanted = layout.backward()

    def row(g: Any) -> Any:
        g = wide(g)
        cells = _cells(g, batch_axis, layout.examples)
        if "grad_zero_fraction" in wanted:
            largest = jnp.max(jnp.abs(g), axis=tuple(range(g.ndim - 1)))  # of each unit
            top = _top(cells, layout) if layout.apart else jnp.max(largest, keepdims=True)
        else:
            top = _top(cells, layout)
        out = _signal(cells, top, layout, wanted)
        if "grad_zero_fraction" in wanted:
            out["grad_zero_fraction"] = jnp.mean(largest == 0, dtype=g.dtype)
        return _pack(out, wanted)

    return jax.jit(row)


def wide(x: Any) -> Any:
    """In float32, or float64 if it is so already: sums are never of fewer digits."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _pack(out: dict[str, Any], wanted: dict[str, int]) -> Any:
    entries = [jnp.broadcast_to(jnp.atleast_1d(out[name]), (n,)) for name, n in wanted.items()]
    return jnp.concatenate([e.astype(jnp.float32) for e in entries])


def _cells(x: Any, batch_axis: int | None, examples: int) -> Any:
    """(examples, positions, features), features along the last axis; one example where no axis counts them.

    An axis that holds several entries of each example holds those of one together.
    """
    if batch_axis is None or x.shape[batch_axis] % examples:
        return x.reshape((1, -1, x.shape[-1]))
    if batch_axis == x.ndim - 1:
        return jnp.moveaxis(x, batch_axis, 0).reshape((examples, 1, -1))
    return jnp.moveaxis(x, batch_axis, 0).reshape((examples, -1, x.shape[-1]))


def _top(cells: Any, layout: Layout) -> Any:
    """The largest size of each input, or of all together."""
    return jnp.atleast_1d(jnp.max(jnp.abs(cells), axis=(1, 2) if layout.apart else (0, 1, 2)))


def _signal(cells: Any, top: Any, layout: Layout, wanted: dict[str, int]) -> dict[str, Any]:
    """Sums over values by name, as `Layout` explains them, with a power of two taken out, that of `top`, the largest
    of each input: the square of 1e-30 is no float32, but 2^-100 and a square of order 1 are."""
    alone = len(cells) != layout.examples
    y = cells.reshape((len(cells), -1)) * power(-exponent(top), cells.dtype)[:, None]
    spread = "spread" in wanted and cells.shape[1] > 1 and not alone
    if spread:
        squares = jnp.sum(jnp.square(y).reshape(cells.shape), axis=2)  # of each position
        each = jnp.sum(squares, axis=1)
    else:
        each = jnp.einsum("an,an->a", y, y, precision=jax.lax.Precision.HIGHEST)
    axes = (1,) if layout.apart else (0, 1)
    # The sums of examples that are not told apart are those of each, in equal parts.
    parts = layout.examples if alone else 1
    out: dict[str, Any] = {
        "ran": jnp.ones((), y.dtype), "top": top, "squares": each / parts,
        "units": jnp.full((), y[0].size / parts, y.dtype),
    }  # fmt: skip
    count, parts = y.size // (1 if not layout.apart else len(y)), parts if layout.apart else 1
    if "level" in wanted:
        level = jnp.sum(y, axis=axes, keepdims=True)
        out["level"] = level.ravel() / parts
    if "fourth" in wanted:
        out["fourth"] = jnp.sum(jnp.square(jnp.square(y - level / count)), axis=axes) / parts
    if "distance" in wanted:
        out["cosine"], out["distance"] = (jnp.nan, jnp.nan) if alone else _apart(y, each)
    if "off" in wanted:
        out["off"] = jnp.nan if alone else _off(y, each)
    if "spread" in wanted:
        out["spread"], out["places"] = (
            _positions(y.reshape(cells.shape), squares) if spread else (jnp.nan, jnp.nan)
        )
    return out


def _apart(y: Any, each: Any) -> tuple[Any, Any]:
    """Cosine of every pair of examples, and 1 - cosine without cancellation; nan for one that is 0."""
    u = y / jnp.sqrt(each)[:, None]
    a, b = np.triu_indices(len(y), 1)
    return jnp.sum(u[a] * u[b], axis=1), jnp.sum(jnp.square(u[a] - u[b]), axis=1) / 2


def _off(y: Any, each: Any) -> Any:
    """Of unit vectors u_a, 0 for an example that is 0, and w, their sum over the number of examples:
    sum_a |u_a - w|^2."""
    u = y * _inverse(each)[:, None]
    # A product: of one reduction that feeds another XLA's CPU compiler makes a slow kernel.
    mean = jnp.full(len(u), 1 / len(u), u.dtype)
    centre = jnp.einsum("a,an->n", mean, u, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(u - centre[None]))


def _positions(y: Any, squares: Any) -> tuple[Any, Any]:
    inverse = _inverse(squares)
    centre = jnp.sum(y * inverse[:, :, None], axis=1)
    return jnp.sum(jnp.square(centre), axis=1), jnp.sum(squares * jnp.square(inverse), axis=1)


def _inverse(squares: Any) -> Any:
    """Of squared lengths: one over the length, or 0."""
    some = squares > 0
    return jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, 1)), 0)


def _activation(x: Any, chain: Chain | None, largest: float) -> Any:
    """The shares of dead and saturated units, and of zeros."""
    if chain is None:
        # 1 for every normal number; nothing is compared.
        some = jnp.minimum(jnp.abs(x) * (1 / jnp.finfo(x.dtype).tiny), 1)
        return jnp.stack([jnp.nan, jnp.nan, (x.size - jnp.sum(some)) / x.size])
    value, slope = value_and_slope(chain, x.astype(equations.aval(chain.jaxpr.invars[0]).dtype))
    count = math.prod(x.shape[:-1])
    group = next(n for n in range(min(count, _BASE - 1), 0, -1) if count % n == 0)
    marks = (slope != 0).astype(jnp.int32)
    marks += _BASE * (jnp.abs(slope) < SATURATED * largest).astype(jnp.int32)
    marks += _BASE**2 * (value == 0).astype(jnp.int32)
    sums = jnp.sum(marks.astype(jnp.float32).reshape((count // group, group, x.shape[-1])), axis=1)
    zero, more = jnp.floor(sums / _BASE**2), jnp.floor(sums / _BASE)
    active, saturated, zero = jnp.sum(jnp.stack([sums - _BASE * more, more - _BASE * zero, zero]), axis=1)
    silent = (active == 0).astype(jnp.float32) * count
    return jnp.sum(jnp.stack([silent, saturated, zero]), axis=1) / x.size
