"""Sums, products and other elementwise equations of values that may share ancestors, and reductions.

Products of jointly Gaussian fields follow Isserlis (1918): with U, V of zero mean,

    Cov(UV, U'V') = Cov(U, U') Cov(V, V') + Cov(U, V') Cov(V, U')

The maximum of two is v + relu(u - v); a choice between two by a predicate p is a + p (b - a).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import primitives

from jaxinit.activations import get
from jaxinit.activations._host import evaluate
from jaxinit.adapt._analytic_fields import (
    Atom,
    Base,
    Field,
    Term,
    atoms_of,
    combine,
    covariance,
    fresh_axes,
)
from jaxinit.adapt._analytic_order import (
    largest,
    log_sum_exp,
    softmax_pair,
    softmax_square,
    softmax_squares,
)
from jaxinit.adapt._analytic_pointwise import IDENTITY, Applied, Expression, Unknown, apply, monotone, settle
from jaxinit.adapt._analytic_shapes import broadcast
from jaxinit.adapt._analytic_values import (
    Known,
    Value,
    aligned,
    as_field,
    field_of_data,
    from_moments,
    masked_by,
)

__all__ = [
    "ELEMENTWISE",
    "elementwise",
    "extreme",
    "multiply",
    "number_of",
    "over",
    "summed",
    "turn_of",
]

SAME = frozenset(
    {"convert_element_type", "copy", "copy_p", "stop_gradient", "jaxinit_mark", "reduce_precision", "real"}
)
ELEMENTWISE = SAME | frozenset(
    {
        "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
        "clamp", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor",
        "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
        "mul", "ne", "neg", "nextafter", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin",
        "sinh", "sqrt", "square", "sub", "tan", "tanh", "xor",
    }
)  # fmt: skip
_COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
#: A denominator may vary by this share of its mean.
_STEADY = 0.35
_CAN_BE_0 = "division by a signal that can be 0"
#: Where a value is looked for at a Gaussian argument, in standard deviations.
_RANGE = np.linspace(-6.0, 6.0, 97)
#: What stands for minus infinity in masked logits.
_MASKED = -1e3


def number_of(value: Value) -> float | None:
    """The one number that all entries are, or None."""
    if isinstance(value, Known):
        return value.number
    return value.mean if isinstance(value, Field) and not value.terms else None


def elementwise(
    primitive: Any, params: dict[str, Any], values: Sequence[Value], shape: Sequence[int]
) -> Value:
    """An elementwise equation of values of one shape (or numbers), not all of them known."""
    name = primitive.name
    values = [_spread(v, shape) for v in values]
    if name == "div" and (shares := _shares(*values)) is not None:
        return shares
    if name == "log" and isinstance(values[0], Field) and values[0].exponentials is not None:
        return _log_sum(values[0])
    if name in SAME and isinstance(values[0], Field) and not _to_integers(params):
        return values[0]  # also a sum of exponentials whose moments are not finite, to another precision
    if any(isinstance(v, Field) and not math.isfinite(v.mean) for v in values):
        raise Unknown(f"{name} of a sum of exponentials whose moments are not finite")
    numbers = [number_of(v) for v in values]
    random = [v for v, n in zip(values, numbers, strict=True) if n is None]
    if not random:
        fn = apply(primitive, params, [float(n) for n in numbers if n is not None])
        return Field(fresh_axes(shape), float(np.asarray(fn(np.zeros(())))), {}, _pure(values))
    if name in SAME and not _to_integers(params):
        return values[0]
    if name == "select_n" and isinstance(values[0], Known) and numbers[0] is None:
        return _chosen(values)
    linear = _linear(name, values, numbers)
    if linear is not None:
        return linear
    composed = _composed(primitive, params, values, numbers)
    if composed is not None:
        return composed
    fields = [
        as_field(v) if n is None else Field(fresh_axes(shape), n, {})
        for v, n in zip(values, numbers, strict=True)
    ]
    return _combined(name, primitive, params, values, fields, numbers)


def _spread(value: Value, shape: Sequence[int]) -> Value:
    """Repeated along axes of length 1 where the result is longer, and a random number everywhere."""
    number = not value.shape and not isinstance(value, Known)
    if (len(value.shape) != len(shape) and not number) or value.shape == tuple(shape):
        return value
    if isinstance(value, Known):
        return Known(np.broadcast_to(np.asarray(value.array), shape))
    every = range(len(value.shape))
    if isinstance(value, Applied):
        return value.on(broadcast(value.argument, shape, every))
    return broadcast(value, shape, every)


def _to_integers(params: dict[str, Any]) -> bool:
    return "new_dtype" in params and not jnp.issubdtype(params["new_dtype"], jnp.floating)


def _pure(values: Sequence[Value]) -> frozenset[int] | None:
    found: frozenset[int] = frozenset()
    for v in values:
        if not isinstance(v, Known):
            own = (v if isinstance(v, Field) else v.argument).parameters
            if own is None:
                return None
            found |= own
    return found


def _mask_of(name: str, known: Known) -> Any:
    return masked_by(known) if name in ("add", "sub", "add_any") else None


def _linear(name: str, values: Sequence[Value], numbers: Sequence[float | None]) -> Value | None:
    """What a scale or a shift does to a field."""
    unknown = [v for v, n in zip(values, numbers, strict=True) if n is None]
    if len(unknown) != 1 or isinstance(unknown[0], Known):
        return None
    found = [v for v, n in zip(values, numbers, strict=True) if n is not None and not isinstance(v, Known)]
    if isinstance(unknown[0], Applied) and not found:
        return None
    # A number that the analysis found differs from layer to layer: it is no part of the function.
    x: Any = settle(unknown[0])
    number = next((n for n in numbers if n is not None), None)
    if name == "neg":
        return x.times(-1.0)
    if number is None:
        return None
    if name in ("add", "add_any"):
        return x.plus(number)
    if name == "mul":
        return x.times(number)
    if name == "sub":
        return x.plus(-number) if numbers[0] is None else x.times(-1.0).plus(number)
    if name == "div" and numbers[0] is None and number != 0:
        return x.times(1.0 / number)
    return None


def _composed(
    primitive: Any, params: dict[str, Any], values: Sequence[Value], numbers: Sequence[float | None]
) -> Applied | None:
    """One function of one argument, where all values are functions of it."""
    unknown = [v for v, n in zip(values, numbers, strict=True) if n is None]
    if any(isinstance(v, Known) for v in unknown):
        return None
    lead: Any = next((v.argument for v in unknown if isinstance(v, Applied)), None)
    if lead is None:
        lead = unknown[0]
    arguments: list[Any] = []
    for value, number in zip(values, numbers, strict=True):
        if number is not None:
            kept = isinstance(value, Known) and np.asarray(value.array).dtype.kind in "iub"
            arguments.append(np.asarray(value.array).flat[0].item() if kept else float(number))  # type: ignore[union-attr]
            continue
        fn = value.fn if isinstance(value, Applied) else IDENTITY
        own: Any = value.argument if isinstance(value, Applied) else value
        affine = _affine(own, lead)
        if affine is None:
            return None
        arguments.append(_after(fn, *affine))
    return Applied(apply(primitive, params, arguments), lead)


def _affine(x: Field, lead: Field) -> tuple[float, float] | None:
    """a, b with x = a lead + b, or None."""
    if x is lead:
        return 1.0, 0.0
    if x.bases != lead.bases or len(x.terms) != len(lead.terms) or x.mask is not lead.mask:
        return None
    if x.axes != lead.axes:
        if [len(a) for a in x.axes] != [len(a) for a in lead.axes] or x.shape != lead.shape:
            return None
        (lead, x), _ = aligned([lead, x])
    if x.terms.keys() != lead.terms.keys():
        return None
    ratios = [x.terms[t] / c for t, c in lead.terms.items()]
    if max(ratios) - min(ratios) > 1e-9 * abs(ratios[0]):
        return None
    # Rounded, so that the same function of another layer is the same expression.
    ratio = float(f"{ratios[0]:.10g}")
    shift = x.mean - ratio * lead.mean
    return ratio, float(f"{shift:.10g}") if abs(shift) > 1e-9 * math.sqrt(lead.variance) else 0.0


def _after(fn: Expression, a: float, b: float) -> Expression:
    """fn(a x + b)."""
    if abs(a - 1.0) < 1e-12 and b == 0.0:
        return fn
    inner = IDENTITY if a == 1.0 else apply(primitives.mul_p, {}, [IDENTITY, float(a)])
    inner = inner if b == 0.0 else apply(primitives.add_p, {}, [inner, float(b)])
    return _substituted(fn, inner)


def _substituted(fn: Expression, inner: Expression) -> Expression:
    if fn.primitive is None:
        return inner
    arguments = [_substituted(v, inner) if isinstance(v, Expression) else v for v in fn.arguments]
    return apply(fn.primitive, dict(fn.params), arguments)


def _combined(
    name: str,
    primitive: Any,
    params: dict[str, Any],
    values: Sequence[Value],
    fields: list[Field],
    numbers: Sequence[float | None],
) -> Value:
    """An equation of several different fields."""
    if name in ("add", "add_any", "sub"):
        for known, other in ((values[0], fields[1]), (values[1], fields[0])):
            if isinstance(known, Known) and (mask := _mask_of(name, known)) is not None:
                return other.like(mask=Known(mask))
        return _added(fields, -1.0 if name == "sub" else 1.0)
    if name == "mul":
        return multiply(*fields)
    if name == "div":
        return _divided(values, fields)
    if name in ("max", "min"):
        u, v = fields
        difference = _added([u, v], -1.0)
        return _added([v, settle(Applied(apply(primitive, {}, [IDENTITY, 0.0]), difference))], 1.0)
    if name in _COMPARISONS:
        return Applied(apply(primitive, params, [IDENTITY, 0.0]), _added(fields, -1.0))
    if name == "select_n" and len(values) == 3:
        which, a, b = fields
        return _added([a, multiply(which, _added([b, a], -1.0))], 1.0)
    if name == "and":
        return multiply(*fields)
    if name == "or":
        u, v = fields
        return _added([_added([u, v], 1.0), multiply(u, v)], -1.0)
    raise Unknown(f"{name} of two different signals")


def _added(fields: Sequence[Field], sign: float) -> Field:
    masked = [f.mask for f in fields if f.mask is not None]
    norm = any(f.norm for f in fields)
    both, axes = aligned(fields)
    out = combine(zip(both, (1.0, sign), strict=True), axes)
    if masked or norm:
        out = out.like(mask=masked[0] if masked else None, norm=norm)
    return out


def multiply(u: Field, v: Field) -> Field:
    """Entry by entry."""
    if not u.terms or not v.terms:
        constant, other = (u, v) if not u.terms else (v, u)
        return other.times(constant.mean)
    (u, v), axes = aligned([u, v])
    atoms = atoms_of(axes)
    cross = covariance(u, v, atoms) if u.bases & v.bases else None
    (a, b), (s, t) = ([f.table(atoms) for f in (u, v)], [f.spread(atoms) for f in (u, v)])
    # Where one's entries are more alike than the mean of pairs, those of the other are too.
    table, spread = a * b + s * t, a * t + b * s
    mean = u.mean * v.mean
    if cross is not None:
        table = table + cross**2
        mean += float(cross[(1,) * cross.ndim])
    slope = u.variance * v.slope + v.variance * u.slope
    out = combine([(u.like(mean=0.0), v.mean), (v.like(mean=0.0), u.mean)], axes)
    new = Base([a.size for a in atoms], table, slope, {**u.sources, **v.sources}, spread=spread)
    return out.like(mean=mean, terms={**out.terms, Term(new, tuple((a,) for a in atoms)): 1.0})


def _shares(numerator: Value, denominator: Value) -> Field | None:
    """exp over a sum of it; moments of either are not needed."""
    sums = denominator.exponentials if isinstance(denominator, Field) else None
    if sums is None or not isinstance(numerator, Applied) or numerator.fn.__name__ != "exp":
        return None
    atoms = [a for a in sums[1] if a in atoms_of(numerator.axes)]
    return _softmax(numerator.argument, atoms) if atoms else None


def _divided(values: Sequence[Value], fields: list[Field]) -> Field:
    denominator, below = values[1], fields[1]
    reciprocal = apply(primitives.div_p, {}, [1.0, IDENTITY])
    if isinstance(denominator, Applied):
        argument = denominator.argument
        seen = np.asarray(denominator.fn(argument.mean + math.sqrt(argument.variance) * _RANGE))
        if np.min(seen) <= 0 <= np.max(seen):  # the integral of 1 / x^2 over it is not finite
            raise Unknown(_CAN_BE_0)
        return multiply(
            fields[0], settle(Applied(_substituted(reciprocal, denominator.fn), denominator.argument))
        )
    if below.norm:
        return fields[0].times(1.0 / below.mean)
    spread = below.variance / below.mean**2 if below.mean else math.inf
    if spread > _STEADY**2:
        raise Unknown(_CAN_BE_0)
    inverse = below.times(-1.0 / below.mean**2).plus(2.0 / below.mean + spread / below.mean)
    return multiply(fields[0], inverse)


def _log_sum(total: Field) -> Field:
    """log of a sum of exp(x), of exchangeable Gaussian entries: their mean, and what is uncorrelated with them, since
    Cov(x_i, log sum_j exp(x_j)) = s^2 / n (Stein)."""
    x, gone = total.exponentials
    if x.mask is not None:
        raise Unknown("log of a sum of exponentials, some of them masked")
    n = math.prod(a.size for a in gone)
    mean = over(x, [k for k, axis in enumerate(x.axes) if set(axis) & set(gone)]).times(1.0 / n)
    own = apart(x, list(atoms_of(mean.axes)), gone)[1]
    s2 = float(own[(1,) * own.ndim])
    shift, variance = log_sum_exp(n, s2)
    rest = own * (max(0.0, variance / s2 - 1.0 / n) if s2 > 0 else 0.0)
    extra = from_moments(mean.axes, shift, rest)
    return combine([(mean, 1.0), (extra, 1.0)], mean.axes).like(axes=total.axes)


def _softmax(x: Field, atoms: Sequence[Atom]) -> Field:
    """exp(x) over its sum along the atoms, of exchangeable Gaussian entries."""
    n = math.prod(a.size for a in atoms)
    every = atoms_of(x.axes)
    others = [a for a in every if a not in atoms]
    m = len(others)
    ordered = x.table([*others, *atoms]).reshape((2,) * m + (-1,))
    spread = np.maximum(ordered[..., -1] - ordered[..., 0], 0.0)
    s2 = float(spread[(1,) * m])
    square, uniform = softmax_square(n, s2), np.full((2,) * m, 1.0 / (n * n))
    rows: dict[int, float] = {n: 1.0}
    if x.mask is not None:
        rows, uniform = _masked_rows(x, others, n)
        squares = softmax_squares(tuple(rows), s2)
        square = sum(share * k * q for (k, share), q in zip(rows.items(), squares, strict=True)) / n
    ratio = (
        np.expm1(np.clip(spread, 0.0, 300.0)) / math.expm1(min(s2, 300.0))
        if s2 > 1e-9
        else np.zeros((2,) * m)
    )
    same = uniform + (square - uniform[(1,) * m]) * ratio
    apart = (1.0 / n - same) / max(n - 1, 1)
    table = np.empty((2,) * m + (2,) * len(atoms))
    table[...] = (apart - 1.0 / (n * n)).reshape((2,) * m + (1,) * len(atoms))
    table[(slice(None),) * m + (1,) * len(atoms)] = same - 1.0 / (n * n)
    # Of two keys that are more alike than most, queries attend to both or to none.
    pairs = sum(share * k * (k - 1) * softmax_pair(k, s2) for k, share in rows.items() if k > 1)
    unlike = x.spread([*others, *atoms]).reshape((2,) * m + (-1,))[..., 0]
    spread = np.zeros(table.shape)
    spread[...] = (unlike * ratio * pairs / max(n * (n - 1), 1)).reshape((2,) * m + (1,) * len(atoms))
    spread[(slice(None),) * m + (1,) * len(atoms)] = 0.0
    order = [*others, *atoms]
    table, spread = (
        np.moveaxis(t, range(len(order)), [every.index(a) for a in order]) for t in (table, spread)
    )
    return from_moments(
        x.axes, 1.0 / n, table, square * x.slope, x.sources, parameters=x.parameters, spread=spread
    )


def _masked_rows(x: Field, others: Sequence[Atom], n: int) -> tuple[dict[int, float], np.ndarray]:
    """How many entries rows leave, with the share of such rows, and the moments of uniform attention on them."""
    mask = np.asarray(x.mask.array, bool)
    for k in range(mask.ndim):
        if mask.shape[k] > 1 and (mask == np.take(mask, [0], k)).all():
            mask = np.take(mask, [0], k)
    along = [k for k, axis in enumerate(x.axes) if not set(axis) <= set(others)]
    left = np.broadcast_to(mask, [n if k in along else s for k, s in enumerate(mask.shape)]).sum(
        axis=tuple(along), keepdims=True
    )
    counts, times = np.unique(np.maximum(left, 1), return_counts=True)
    rows = {int(c): t / times.sum() for c, t in zip(counts, times, strict=True)}
    weights = np.where(mask, 1.0 / np.maximum(left, 1), 0.0)
    found = (
        field_of_data(weights)
        if np.ptp(weights) > 0
        else Field(fresh_axes(weights.shape), float(weights.mean()), {})
    )
    names, axes = {}, []
    for own, axis in zip(found.axes, x.axes, strict=True):
        if own and len(axis) == 1:
            names[own[0]] = axis
        axes.append(axis)
    return rows, found.renamed(names, tuple(axes)).moments(others)


def _chosen(values: Sequence[Value]) -> Value:
    """A choice by a known array."""
    which, *cases = values
    assert isinstance(which, Known)
    if len(cases) != 2:
        raise Unknown("a choice among more than two")
    a, b = cases
    mask = np.asarray(which.array, bool)
    for hidden, shown, keep in ((a, b, mask), (b, a, ~mask)):
        number = number_of(hidden)
        if number is not None and number <= _MASKED:
            return as_field(shown).like(mask=Known(keep))
    chosen = as_field(Known(mask.astype(np.float64)))
    axes = chosen.axes
    first, second = (
        as_field(v) if number_of(v) is None else Field(axes, float(number_of(v)), {})  # type: ignore[arg-type]
        for v in (a, b)
    )
    return _added([first, multiply(chosen, _added([second, first], -1.0))], 1.0)


def summed(value: Value, axes: Sequence[int]) -> Field:
    """The sum over axes."""
    tags: dict[str, Any] = {}
    try:
        x = as_field(value)
    except Unknown:
        if not isinstance(value, Applied) or value.fn.__name__ != "exp":
            raise
        x = Field(value.axes, math.inf, {})  # of logits this wide; their softmax is finite all the same
    if isinstance(value, Applied):
        gone = [a for k in axes for a in value.axes[k]]
        if gone and _is_square(value.fn):
            tags["norm"] = True
        if value.fn.__name__ == "exp" and value.fn.arguments == (IDENTITY,):
            tags["exponentials"] = (value.argument, tuple(gone))
            if value.argument.mask is not None:
                mask = np.asarray(value.argument.mask.array, bool)
                x = x.times(float(np.broadcast_to(mask, x.shape).mean()))
    elif x.norm:
        tags["norm"] = True
    return over(x, axes).like(**tags)


def over(x: Field, axes: Sequence[int]) -> Field:
    """The sum of a field over axes."""
    gone = [a for k in axes for a in x.axes[k]]
    kept = tuple(axis for k, axis in enumerate(x.axes) if k not in axes)
    n = math.prod(a.size for a in gone)
    terms: dict[Term, float] = {}
    for t, c in x.terms.items():
        new = t._replace(over=t.over | {a for place in t.places for a in place if a in gone})
        terms[new] = terms.get(new, 0.0) + c * n
    return Field(kept, x.mean * n, terms, x.parameters)


def _is_square(fn: Expression) -> bool:
    """Whether it is a multiple of x^2."""
    points = np.array([-2.0, -1.0, 0.5, 3.0])
    values, _ = evaluate(get(fn), points)
    ratios = values / points**2
    return bool(np.isfinite(ratios).all() and ratios[0] and np.ptp(ratios) < 1e-6 * abs(ratios[0]))


def extreme(value: Value, axes: Sequence[int], sign: int) -> Value:
    """The largest (sign 1) or smallest (-1) entry over axes."""
    if isinstance(value, Applied):
        turn = turn_of(value)
        return Applied(value.fn, as_field(extreme(value.argument, axes, sign * turn)))
    x = as_field(value)
    atoms = [a for k in axes for a in x.axes[k]]
    n = math.prod(a.size for a in atoms)
    mean = over(x, axes).times(1.0 / n)
    others = list(atoms_of(mean.axes))
    own = apart(x, others, atoms)[1]
    shift, variance = largest(n)
    rest = own * max(0.0, variance - 1.0 / n)
    extra = from_moments(mean.axes, sign * shift * math.sqrt(float(own[(1,) * own.ndim])), rest)
    return combine([(mean, 1.0), (extra, 1.0)], mean.axes).like(parameters=x.parameters)


def apart(x: Field, others: Sequence[Atom], atoms: Sequence[Atom]) -> tuple[np.ndarray, np.ndarray]:
    """By agreement on `others`: the covariance of entries that differ in the atoms, and what agreeing there adds."""
    table = x.table([*others, *atoms]).reshape((2,) * len(others) + (-1,))
    return table[..., 0], np.maximum(table[..., -1] - table[..., 0], 0.0)


def turn_of(value: Applied) -> int:
    turn = monotone(value.fn, value.argument)
    if not turn:
        raise Unknown(f"the extremum of {value.fn.__name__}, which is not monotone")
    return turn
