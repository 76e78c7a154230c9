"""Fans from meaning: which axes of a kernel are summed over, which are outputs, which are copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import record, static

__all__ = ["Axes", "axes", "fans"]

REST = "rest"


@record
class Axes:
    """The roles of a kernel's axes; every field is static. Make one with `axes(...)`, which checks."""

    in_axis: Any = static(default=-2)
    out_axis: Any = static(default=-1)
    batch_axis: Any = static(default=())
    groups: int = static(default=1)
    stride: Any = static(default=1)
    einsum: str | None = static(default=None)
    fan: float | None = static(default=None)

    def changed(self) -> dict[str, Any]:
        """The fields that differ from the defaults."""
        plain = Axes()
        names = ("in_axis", "out_axis", "batch_axis", "groups", "stride", "einsum", "fan")
        return {n: getattr(self, n) for n in names if getattr(self, n) != getattr(plain, n)}


def _axis(where: str, argument: str, value: Any) -> Any:
    """An axis or a tuple of axes, as Python ints."""
    if isinstance(value, (str, bytes)):
        raise checks.wrong_type(where, argument, "an integer or a sequence of integers", value)
    try:
        many = tuple(value)
    except TypeError:
        return checks.integer(where, argument, value)
    found = tuple(checks.integer(where, argument, v) for v in many)
    if len(set(found)) != len(found):
        raise checks.bad(where, argument, "a sequence of distinct axes", value)
    return found


def _as_tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def axes(
    where: str,
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    groups: int = 1,
    stride: Any = 1,
    einsum: str | None = None,
    fan: float | None = None,
) -> Axes:
    """The checked record of the arguments that every fan-aware factory takes."""
    i, o = _axis(where, "in_axis", in_axis), _axis(where, "out_axis", out_axis)
    b: Any = (
        REST if isinstance(batch_axis, str) and batch_axis == REST else _axis(where, "batch_axis", batch_axis)
    )
    if b != REST:
        for first, x, second, y in (
            ("in_axis", i, "out_axis", o), ("in_axis", i, "batch_axis", b), ("out_axis", o, "batch_axis", b),
        ):  # fmt: skip
            both = set(_as_tuple(x)) & set(_as_tuple(y))
            if both:
                raise checks.bad(where, first, f"distinct from {second}, which also names {sorted(both)}", x)
    g = checks.integer(where, "groups", groups, at_least=1)
    s: Any
    if isinstance(stride, (tuple, list)):
        s = tuple(checks.integer(where, "stride", v, at_least=1) for v in stride)
    else:
        s = checks.integer(where, "stride", stride, at_least=1)
    if einsum is not None:
        _roles(where, einsum)
        given = [n for n, v, d in (
            ("in_axis", i, -2), ("out_axis", o, -1), ("batch_axis", b, ()), ("groups", g, 1),
            ("stride", s, 1),
        ) if v != d]  # fmt: skip
        if given:
            raise checks.bad(
                where, "einsum", f"the only description of the axes, without {', '.join(given)}", einsum
            )
    if fan is not None:
        fan = float(checks.number(where, "fan", fan, above=0))
    return Axes(i, o, b, g, s, None if einsum is None else einsum.replace(" ", ""), fan)


def _roles(where: str, equation: str) -> tuple[str, str, str, str]:
    """Letters of the kernel (the second operand), and those that are in, out and batch axes."""
    way_out = "Write inputs and kernel, such as 'bc,hcd->bhd'."
    if not isinstance(equation, str):
        raise checks.wrong_type(where, "einsum", "an equation with two operands", equation, way_out)
    text = equation.replace(" ", "")
    left, arrow, output = text.partition("->")
    operands = left.split(",")
    letters = (left + output).replace(",", "").replace("...", "")
    if not arrow or len(operands) != 2 or not letters.isalpha():
        raise checks.bad(where, "einsum", "an equation with two operands and an output", equation, way_out)
    inputs, kernel = operands
    if "." in kernel or len(set(kernel)) != len(kernel) or not kernel:
        raise checks.bad(
            where, "einsum", "an equation whose kernel has distinct, named axes", equation, way_out
        )
    unknown = set(output.replace(".", "")) - set(inputs) - set(kernel)
    if unknown:
        rule = f"an equation whose output is in its operands (not {sorted(unknown)})"
        raise checks.bad(where, "einsum", rule, equation, way_out)
    summed = "".join(c for c in kernel if c not in output)
    batch = "".join(c for c in kernel if c in output and c in inputs)
    out = "".join(c for c in kernel if c in output and c not in inputs)
    return kernel, summed, out, batch


def _resolve(where: str, argument: str, value: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    found = []
    for a in _as_tuple(value):
        if not -len(shape) <= a < len(shape):
            raise checks.bad(
                where, argument, f"an axis of a kernel of shape {shape}", value,
                "Name the axes with in_axis, out_axis and batch_axis, or give the fan itself with fan=.",
            )  # fmt: skip
        found.append(a % len(shape))
    return tuple(found)


def resolve(where: str, spec: Axes, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The in, out, batch and receptive-field axes of a kernel of this shape, as non-negative numbers."""
    if spec.einsum is not None:
        kernel, summed, out, batch = _roles(where, spec.einsum)
        if len(kernel) != len(shape):
            raise checks.bad(
                where,
                "einsum",
                f"an equation whose kernel has the {len(shape)} axes of shape {shape}",
                spec.einsum,
            )
        return (*(tuple(kernel.index(c) for c in group) for group in (summed, out, batch)), ())
    o = _resolve(where, "out_axis", spec.out_axis, shape)
    i = _resolve(where, "in_axis", spec.in_axis, shape)
    if spec.in_axis == -2 and len(shape) == 2 and o == i:
        # the table of an embedding, `variance_scaling(..., out_axis=0)` in Flax: rows are looked up
        i = (1 - o[0],)
    taken = set(i) | set(o)
    if spec.batch_axis == REST:
        b = tuple(a for a in range(len(shape)) if a not in taken)
    else:
        b = _resolve(where, "batch_axis", spec.batch_axis, shape)
    named = [*i, *o, *b]
    if len(set(named)) != len(named):
        twice = sorted({a for a in named if named.count(a) > 1})
        rule = f"distinct from out_axis and batch_axis (axis {twice[0]} of {shape} is named twice)"
        raise checks.bad(where, "in_axis", rule, (spec.in_axis, spec.out_axis, spec.batch_axis))
    rest = tuple(a for a in range(len(shape)) if a not in named)
    return i, o, b, rest


def compute(where: str, spec: Axes, shape: tuple[int, ...]) -> tuple[float, float]:
    """Fan-in and fan-out of a kernel of this shape."""
    if spec.fan is not None:
        return spec.fan, spec.fan
    if len(shape) < 2 and spec.in_axis == -2 and spec.einsum is None:
        raise checks.bad(
            where, "shape", "at least 2-D to have a fan-in and a fan-out", shape,
            "Give the fan itself, such as fan=128, or name the axes with in_axis=.",
        )  # fmt: skip
    i, o, _, rest = resolve(where, spec, shape)
    size_in, size_out = math.prod(shape[a] for a in i), math.prod(shape[a] for a in o)
    field = math.prod(shape[a] for a in rest)
    if size_out % spec.groups:
        raise checks.bad(where, "groups", f"a divisor of the {size_out} output features", spec.groups)
    if isinstance(spec.stride, tuple):
        if len(spec.stride) != len(rest):
            rule = f"one number for each of the {len(rest)} spatial axes of {shape}"
            raise checks.bad(where, "stride", rule, spec.stride)
        steps = math.prod(spec.stride)
    else:
        steps = spec.stride ** len(rest)
    return size_in * field / steps, size_out * field / spec.groups


def fans(
    shape: Sequence[int],
    in_axis: int | Sequence[int] = -2,
    out_axis: int | Sequence[int] = -1,
    batch_axis: int | Sequence[int] | str = (),
    *,
    groups: int = 1,
    stride: int | Sequence[int] = 1,
    einsum: str | None = None,
) -> tuple[float, float]:
    """Fan-in and fan-out of a kernel: how many inputs one output sums, and how many outputs one input feeds.

        fan_in  = (in axes) x (receptive field) / (stride per spatial axis)
        fan_out = (out axes) x (receptive field) / groups

    Axes that are named neither in, out nor batch are the receptive field of a convolution. The roles are
    taken from what you say, never guessed from the rank.

    Args:
        shape: the kernel's shape, by default `(*spatial, in, out)`. For a grouped convolution `in` is already
            divided by the groups, as in Flax.
        in_axis: axes that are summed over.
        out_axis: axes of the output features.
        batch_axis: axes of independent copies (heads, experts, stacked layers); `"rest"` means every axis
            that is neither in nor out.
        groups: feature groups of a grouped or depthwise convolution.
        stride: of a *transposed* convolution, in which an output sees only kernel/stride taps an axis on average.
        einsum: the equation of the layer, inputs first, such as "bc,hcd->bhd": letters of the kernel missing in the
            output are summed over, letters shared with inputs and output are copies.

    Returns:
        `(fan_in, fan_out)` as floats.

    Raises:
        ValueError: for axes that are out of range or named twice, and for shapes that are too short.

    Source: Glorot & Bengio 2010 and He et al. 2015 (section 2.2) for dense and convolutional layers.

    Example:
        >>> from jaxinit.initializers import fans
        >>> fans((3, 3, 16, 32))
        (144.0, 288.0)
        >>> fans((3, 3, 1, 64), groups=64)
        (9.0, 9.0)
        >>> fans((4, 4, 64, 32), stride=2)
        (256.0, 512.0)
        >>> fans((8, 64, 16), einsum="bc,hcd->bhd")
        (64.0, 128.0)
    """
    spec = axes("fans", in_axis, out_axis, batch_axis, groups, stride, einsum)
    fan_in, fan_out = compute("fans", spec, checks.shape("fans", "shape", shape))
    return float(np.float64(fan_in)), float(np.float64(fan_out))
