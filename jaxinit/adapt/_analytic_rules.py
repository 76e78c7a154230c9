"""The rule of each equation of a program, by its primitive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxinit.adapt._analytic_algebra import ELEMENTWISE, elementwise, extreme, number_of, summed
from jaxinit.adapt._analytic_fields import Field, fresh_axes
from jaxinit.adapt._analytic_pointwise import Applied, Unknown
from jaxinit.adapt._analytic_products import convolution, dot, lookup, window_extreme, window_sum
from jaxinit.adapt._analytic_shapes import broadcast, concatenated, part, reshaped, transposed, without
from jaxinit.adapt._analytic_values import Known, Value, as_field

__all__ = ["equation"]

#: Variances of parts that are taken for those of one array.
_ALIKE = 1.02


def equation(eqn: Any, values: Sequence[Value], site: Callable[..., Any]) -> list[Value]:
    """The outputs of an equation, not all of whose inputs are known; raises Unknown where there is no rule."""
    name, params = eqn.primitive.name, eqn.params
    shape = tuple(eqn.outvars[0].aval.shape)
    if name in ELEMENTWISE:
        return [elementwise(eqn.primitive, params, values, shape)]
    if name == "optimization_barrier":
        return list(values)
    if name == "dot_general":
        return [dot(values[0], values[1], params["dimension_numbers"], site)]
    if name == "conv_general_dilated":
        return [convolution(values[0], values[1], params, shape, site)]
    if name == "concatenate":
        return [_joined(values, params["dimension"])]
    if name == "gather" and isinstance(values[1], Known):
        return [lookup(values[0], values[1], params, shape, site)]
    if name == "pad":
        return [_padded(as_field(values[0]), number_of(values[1]), params["padding_config"])]
    if name == "dynamic_slice" and all(isinstance(v, Known) for v in values[1:]):
        starts = [int(np.asarray(v.array)) for v in values[1:]]  # type: ignore[union-attr]
        return [_on(values[0], lambda x: _sliced(x, starts, shape, [1] * len(shape)))]
    if name == "split":
        return _split(values[0], params["sizes"], params["axis"])
    rule = _OF_ONE.get(name)
    if rule is None or not all(isinstance(v, Known) for v in values[1:]):
        raise Unknown("there is no rule for it")
    return [rule(values[0], params, shape)]


def _on(value: Value, change: Callable[[Field], Field]) -> Value:
    """A change of arrangement, which elementwise functions do not see."""
    if isinstance(value, Applied):
        return value.on(change(value.argument))
    return change(as_field(value))


def _joined(values: Sequence[Value], axis: int) -> Value:
    """Parts along an axis: one function of parts alike is that of them together, as of an image padded with itself."""
    lead = values[0]
    parts = [
        v.argument for v in values if isinstance(v, Applied) and isinstance(lead, Applied) and v.fn is lead.fn
    ]
    if len(parts) == len(values) and isinstance(lead, Applied):
        sizes, means = [p.variance for p in parts], [p.mean for p in parts]
        if max(sizes) <= _ALIKE * min(sizes) and np.ptp(means) ** 2 <= (_ALIKE - 1.0) * min(sizes):
            return lead.on(concatenated(parts, axis))
    return concatenated([as_field(v) for v in values], axis)


def _arranged(change: Callable[[Field, dict[str, Any], tuple[int, ...]], Field]) -> Callable[..., Value]:
    return lambda value, params, shape: _on(value, lambda x: change(x, params, shape))


def _sliced(x: Field, starts: Sequence[int], shape: Sequence[int], strides: Sequence[int]) -> Field:
    for axis, (start, size, stride) in enumerate(zip(starts, shape, strides, strict=True)):
        if size == 0:
            raise Unknown("an empty slice")
        x = part(x, axis, (start, stride), size)
    return x


def _slice(x: Field, params: dict[str, Any], shape: tuple[int, ...]) -> Field:
    return _sliced(x, params["start_indices"], shape, params["strides"] or [1] * len(shape))


def _reversed(x: Field, params: dict[str, Any], shape: tuple[int, ...]) -> Field:
    for axis in params["dimensions"]:
        if x.shape[axis] > 1 and x.axes[axis]:
            x = part(x, axis, "reversed", x.shape[axis])
    return x


def _split(value: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    starts = [int(n) for n in np.cumsum([0, *sizes[:-1]])]

    def piece(start: int, size: int) -> Value:
        return _on(value, lambda x: part(x, axis, (start, 1), size))

    return [piece(start, size) for start, size in zip(starts, sizes, strict=True)]


def _padded(x: Field, fill: float | None, config: Sequence[tuple[int, int, int]]) -> Field:
    if fill is None:
        raise Unknown("padded with a signal")
    for axis, (low, high, between) in enumerate(config):
        added = low + high + between * max(x.shape[axis] - 1, 0)
        if low < 0 or high < 0:
            raise Unknown("padded by less than nothing")
        if added:
            shape = (*x.shape[:axis], added, *x.shape[axis + 1 :])
            x = concatenated([x, Field(fresh_axes(shape), fill, {})], axis)
    return x


_OF_ONE: dict[str, Callable[..., Value]] = {
    "transpose": _arranged(lambda x, p, s: transposed(x, p["permutation"])),
    "squeeze": _arranged(lambda x, p, s: without(x, [d % len(x.axes) for d in p["dimensions"]])),
    "reshape": _arranged(lambda x, p, s: reshaped(x, s)),
    "expand_dims": _arranged(lambda x, p, s: reshaped(x, s)),
    "broadcast_in_dim": _arranged(lambda x, p, s: broadcast(x, s, p["broadcast_dimensions"])),
    "slice": _arranged(_slice),
    "rev": _arranged(_reversed),
    "reduce_sum": lambda v, p, s: summed(v, p["axes"]),
    "reduce_max": lambda v, p, s: extreme(v, p["axes"], 1),
    "reduce_min": lambda v, p, s: extreme(v, p["axes"], -1),
    "reduce_window_sum": lambda v, p, s: window_sum(v, p, s),
    "reduce_window_max": lambda v, p, s: window_extreme(v, p, s, 1),
    "reduce_window_min": lambda v, p, s: window_extreme(v, p, s, -1),
}
