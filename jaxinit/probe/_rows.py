"""The statistics of one place as a row of numbers, all places alike: reduced on the spot, in float32.

Written for this area alone: theory, simulation and probe share no numerics.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.probe import _equations as equations
from jaxinit.probe._activation import Chain, largest_slope, value_and_slope

__all__ = ["Layout", "backward_row", "forward_row", "wide"]

#: Powers of two beyond which float32 has no normal numbers.
_FAR = 126

#: A unit is saturated when |phi'| is below this share of its maximum.
SATURATED = 1e-2

#: Of these an entry of a row is a mantissa and another, of this prefix, an exponent of 2.
EXPONENT = "exponent of "

_FORWARD = {
    "second_moment": "input", "mean": "input", "kurtosis": "input",
    "correlation": "pair", "one_minus_correlation": "pair",
    "dead_fraction": "", "saturated_fraction": "", "zero_fraction": "",
    "position_correlation": "", "nonfinite_fraction": "",
}  # fmt: skip
_BACKWARD = {
    "grad_second_moment": "input", "grad_correlation": "pair",
    "grad_zero_fraction": "", "grad_nonfinite_fraction": "",
}  # fmt: skip

#: Statistics with one entry a place.
PER_SITE = frozenset(name for name, axis in {**_FORWARD, **_BACKWARD}.items() if not axis)
#: Statistics of pairs of examples.
PAIRWISE = frozenset(name for name, axis in {**_FORWARD, **_BACKWARD}.items() if axis == "pair")
#: Statistics of values, and of gradients.
FORWARD = frozenset({*_FORWARD, "log_second_moment"})
BACKWARD = frozenset({*_BACKWARD, "log_grad_second_moment"})


class Layout(NamedTuple):
    """What a row holds, and of how many examples.

    `examples` in a batch; `apart`: whether each has entries of its own, or all are pooled into one.
    `wanted`: names of statistics, those of pairs included only if there are two examples.
    """

    examples: int
    apart: bool
    wanted: frozenset[str]

    @property
    def inputs(self) -> int:
        return self.examples if self.apart else 1

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        if self.examples < 2:
            return ()
        if not self.apart:
            return ((0, 1),)
        return tuple((a, b) for a in range(self.examples) for b in range(a + 1, self.examples))

    def forward(self) -> dict[str, int]:
        """The entries of a forward row, in order: name -> how many."""
        return self._entries(_FORWARD)

    def backward(self) -> dict[str, int]:
        """The entries of a backward row."""
        return self._entries(_BACKWARD)

    def _entries(self, kinds: dict[str, str]) -> dict[str, int]:
        lengths = {"input": self.inputs, "pair": len(self.pairs), "": 1}
        out = {"ran": 1}
        for name, axis in kinds.items():
            if name in self.wanted or (name.endswith("second_moment") and f"log_{name}" in self.wanted):
                out[name] = lengths[axis]
                if name.endswith("second_moment"):
                    out[EXPONENT + name] = lengths[axis]
        return out


def forward_row(x: Any, batch_axis: int | None, layout: Layout, chain: Chain | None) -> Any:
    """The row of a value."""
    slope = 0.0 if chain is None else largest_slope(chain)
    return _forward(batch_axis, layout, _Same(chain), slope)(jax.lax.stop_gradient(x))


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
def _forward(batch_axis: int | None, layout: Layout, same: _Same, largest: float) -> Any:
    wanted = layout.forward()

    def row(x: Any) -> Any:
        x = wide(x)
        out = _signal(x, batch_axis, layout, wanted, "second_moment", "correlation")
        out["nonfinite_fraction"] = jnp.mean(~jnp.isfinite(x), dtype=x.dtype)
        if {"dead_fraction", "saturated_fraction", "zero_fraction"} & set(wanted):
            out.update(_activation(x, same.chain, largest))
        if "position_correlation" in wanted:
            out["position_correlation"] = _positions(x, batch_axis)
        return _pack(out, wanted)

    return jax.jit(row)


@functools.lru_cache(maxsize=512)
def _backward(batch_axis: int | None, layout: Layout) -> Any:
    wanted = layout.backward()

    def row(g: Any) -> Any:
        g = wide(g)
        out = _signal(g, batch_axis, layout, wanted, "grad_second_moment", "grad_correlation")
        out["grad_nonfinite_fraction"] = jnp.mean(~jnp.isfinite(g), dtype=g.dtype)
        if "grad_zero_fraction" in wanted:
            silent = jnp.all(g == 0, axis=tuple(range(g.ndim - 1)))
            out["grad_zero_fraction"] = jnp.mean(silent, dtype=g.dtype)
        return _pack(out, wanted)

    return jax.jit(row)


def wide(x: Any) -> Any:
    """In float32, or float64 if it is so already: sums are never of fewer digits."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _pack(out: dict[str, Any], wanted: dict[str, int]) -> Any:
    entries = [jnp.broadcast_to(jnp.atleast_1d(out[name]), (n,)) for name, n in wanted.items()]
    return jnp.concatenate([e.astype(jnp.float32) for e in entries])


def _signal(
    x: Any, batch_axis: int | None, layout: Layout, wanted: dict[str, int], square: str, cosine: str
) -> dict[str, Any]:
    """Moments over units and cosines between examples, by name, with the powers of two taken out first: the
    square of 1e-30 is no float32, but 2^-100 and a square of order 1 are."""
    together = batch_axis is None or x.shape[batch_axis] % layout.examples != 0
    rows = x.reshape((1, x.size)) if together else _by_example(x, batch_axis, layout.examples)
    top = jnp.max(jnp.abs(rows), axis=1) if layout.apart else jnp.max(jnp.abs(rows))[None]
    finite = jnp.isfinite(top)
    exponent = _exponent(top)
    y = rows * _power(-exponent, x.dtype)[:, None]

    total, squares = jnp.sum(y, axis=1), jnp.sum(jnp.square(y), axis=1)
    over = (lambda v: v / y.shape[1]) if layout.apart else (lambda v: jnp.sum(v, keepdims=True) / y.size)
    mean = over(total)
    out: dict[str, Any] = {
        "ran": jnp.ones((), x.dtype),
        square: jnp.where(finite, over(squares), jnp.inf),
        EXPONENT + square: jnp.where(finite, 2 * exponent, 0),
        "mean": jnp.where(finite, mean * _power(exponent, x.dtype), jnp.nan),
    }
    if "kurtosis" in wanted:
        central = jnp.square(y - mean[:, None])
        out["kurtosis"] = (
            over(jnp.sum(jnp.square(central), axis=1)) / jnp.square(over(jnp.sum(central, axis=1))) - 3
        )
    if wanted.get(cosine) or wanted.get(f"one_minus_{cosine}"):
        cosines = (jnp.nan, jnp.nan) if together else (_apart if layout.apart else _pooled)(y, squares)
        out[cosine], out[f"one_minus_{cosine}"] = cosines
    return out


def _exponent(top: Any) -> Any:
    """The power of two at or below a positive float32, from its bits, within the range of normal numbers."""
    bits = jax.lax.bitcast_convert_type(top.astype(jnp.float32), jnp.int32)
    return jnp.clip((bits >> 23) - 127, -_FAR, _FAR)


def _power(exponent: Any, dtype: Any) -> Any:
    """2^exponent, exact."""
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32).astype(dtype)


def _by_example(x: Any, batch_axis: int | None, examples: int) -> Any:
    """(examples, entries). An axis that holds several entries of each example holds those of one together."""
    return jnp.moveaxis(x, batch_axis or 0, 0).reshape((examples, x.size // examples))


def _apart(y: Any, squares: Any) -> tuple[Any, Any]:
    """Cosine of every pair of rows, and 1 - cosine without cancellation; nan for a row that is 0."""
    u = y / jnp.sqrt(squares)[:, None]
    a, b = np.triu_indices(y.shape[0], 1)
    return jnp.sum(u[a] * u[b], axis=1), jnp.sum(jnp.square(u[a] - u[b]), axis=1) / 2


def _pooled(y: Any, squares: Any) -> tuple[Any, Any]:
    """The mean cosine of two different rows among those that are not 0, and 1 minus it without cancellation.

    Of m unit vectors u_a with mean v, the mean of |u_a - u_b|^2 / 2 over a != b is sum_a |u_a - v|^2 / (m - 1).
    """
    some = squares > 0
    m = jnp.sum(some, dtype=y.dtype)
    inverse = jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, 1)), 0)
    centre = jnp.matmul(inverse, y, precision=jax.lax.Precision.HIGHEST) / m
    off = jnp.where(some[:, None], y * inverse[:, None] - centre[None, :], 0)
    one_minus = jnp.where(m > 1, jnp.sum(jnp.square(off)) / (m - 1), jnp.nan)
    return 1 - one_minus, one_minus


def _activation(x: Any, chain: Chain | None, largest: float) -> dict[str, Any]:
    if chain is None:
        undefined = jnp.full((), jnp.nan, x.dtype)
        zero = jnp.mean(x == 0, dtype=x.dtype)
        return {"dead_fraction": undefined, "saturated_fraction": undefined, "zero_fraction": zero}
    value, slope = value_and_slope(chain, x.astype(equations.aval(chain.jaxpr.invars[0]).dtype))
    dead = jnp.all(slope == 0, axis=tuple(range(x.ndim - 1)))
    return {
        "dead_fraction": jnp.mean(dead, dtype=x.dtype),
        "saturated_fraction": jnp.mean(jnp.abs(slope) < SATURATED * largest, dtype=x.dtype),
        "zero_fraction": jnp.mean(value == 0, dtype=x.dtype),
    }


def _positions(x: Any, batch_axis: int | None) -> Any:
    """The mean cosine of two positions of one example, over examples; nan where there are no positions.

    Features are the last axis, positions all axes but that and the examples'.
    """
    if batch_axis in (None, x.ndim - 1) or x.ndim < 3 or x.size == x.shape[batch_axis] * x.shape[-1]:
        return jnp.full((), jnp.nan, x.dtype)
    y = jnp.moveaxis(x, batch_axis, 0).reshape((x.shape[batch_axis], -1, x.shape[-1]))
    y = y / jnp.max(jnp.abs(y))
    squares = jnp.sum(jnp.square(y), axis=2)
    some = squares > 0
    inverse = jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, 1)), 0)
    centre = jnp.einsum("bt,btd->bd", inverse, y, precision=jax.lax.Precision.HIGHEST)
    m = jnp.sum(some, axis=1, dtype=y.dtype)
    each = (jnp.sum(jnp.square(centre), axis=1) - m) / (m * (m - 1))
    return jnp.mean(jnp.where(m > 1, each, jnp.nan))
