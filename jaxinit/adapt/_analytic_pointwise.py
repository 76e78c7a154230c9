"""Elementwise functions of one Gaussian array: expressions that are collected, then integrated once.

All equations between two matrix products that depend on one array alone are one function, however they are written; so
x sigmoid(x) is no product of two dependent things. When something else is done with the value, the function is
integrated against the Gaussian, panel by panel between its kinks (`jaxinit.activations`), with a = its normalized
Hermite coefficients:

    f(m + B) = a_0 + (a_1 / sigma) B + R,        Cov(R, R') = sum_{k >= 2} a_k^2 c^k

R is uncorrelated with B, so what is linear in the ancestors stays so (Bussgang 1952), and the covariance of any two
entries is the dual kernel at their correlation c (Daniely, Frostig & Singer 2016).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinit.activations import Activation, get
from jaxinit.activations._host import evaluate
from jaxinit.activations._moments import hermite_rule
from jaxinit.activations._panels import edges
from jaxinit.activations._quadrature import REACH
from jaxinit.adapt._analytic_fields import Axes, Base, Field, Term

__all__ = ["IDENTITY", "Applied", "Expression", "Unknown", "apply", "settle"]

_DEGREE = 40


class Unknown(Exception):
    """There is no rule for it: the message says for what."""


class Expression:
    """An elementwise program of one argument; made by `apply`, equal ones are one object."""

    __slots__ = ("arguments", "params", "primitive")

    def __init__(
        self, primitive: Any, params: tuple[tuple[str, Any], ...], arguments: tuple[Any, ...]
    ) -> None:
        self.primitive, self.params, self.arguments = primitive, params, arguments

    @property
    def __name__(self) -> str:
        return "x" if self.primitive is None else str(self.primitive)

    def __call__(self, x: Any) -> Any:
        """Evaluate in the dtype of x; truth values and integers become such numbers at the end."""
        x = jnp.asarray(x)
        done: dict[int, Any] = {}

        def value(node: Any, like: Any) -> Any:
            if not isinstance(node, Expression):
                return jnp.full(x.shape, node, like)
            if id(node) not in done:
                done[id(node)] = x if node.primitive is None else evaluated(node)
            return done[id(node)]

        def evaluated(node: Expression) -> Any:
            dtypes = [value(a, None).dtype for a in node.arguments if isinstance(a, Expression)]
            floating = any(jnp.issubdtype(d, jnp.floating) for d in dtypes)
            numbers = [
                x.dtype if isinstance(a, float) and (floating or node.primitive.name == "select_n") else None
                for a in node.arguments
            ]
            given = [value(a, d) for a, d in zip(node.arguments, numbers, strict=True)]
            params = dict(node.params)
            if node.primitive.name == "convert_element_type":
                kind = jnp.dtype(params["new_dtype"])
                return given[0].astype(x.dtype if jnp.issubdtype(kind, jnp.floating) else kind)
            return node.primitive.bind(*given, **params)

        out = value(self, None)
        return out if jnp.issubdtype(out.dtype, jnp.floating) else out.astype(x.dtype)


#: The argument itself.
IDENTITY = Expression(None, (), ())

_made: dict[Any, Expression] = {}


def apply(primitive: Any, params: dict[str, Any], arguments: Sequence[Any]) -> Expression:
    """The expression of an elementwise primitive of expressions and numbers."""
    held = tuple(sorted((k, v) for k, v in params.items() if _hashable(v)))
    key = (primitive, held, tuple(id(a) if isinstance(a, Expression) else (type(a), a) for a in arguments))
    if key not in _made:
        if len(_made) > 4096:
            _made.clear()
        _made[key] = Expression(primitive, held, tuple(arguments))
    return _made[key]


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


class Applied:
    """`fn` of every entry of a field; integrated when that is needed."""

    def __init__(self, fn: Expression, argument: Field) -> None:
        self.fn, self.argument = fn, argument
        self._settled: Field | None = None

    @property
    def axes(self) -> Axes:
        return self.argument.axes

    @property
    def shape(self) -> tuple[int, ...]:
        return self.argument.shape

    def on(self, argument: Field) -> Applied:
        """The same function of another arrangement of the argument."""
        return Applied(self.fn, argument)


def settle(value: Any) -> Field:
    """The field of an elementwise function, in closed form from here on."""
    if isinstance(value, Field):
        return value
    if value._settled is None:
        value._settled = _integrated(value.fn, value.argument)
    return value._settled


def _integrated(fn: Expression, x: Field) -> Field:
    variance = x.variance
    if x.norm or variance <= 1e-24 * max(x.mean**2, 1e-300):
        (constant,), _ = evaluate(get(fn), np.array([x.mean]))
        if not math.isfinite(constant):
            raise Unknown(f"{fn.__name__} is not finite here")
        return Field(x.axes, float(constant), {}, x.parameters)
    coefficients, second, slope = hermite_of(fn, x.mean, variance)
    table = x.table() / variance
    rest = coefficients.copy()
    rest[:2] = 0.0
    moved = np.polynomial.Polynomial(rest**2).deriv()
    powers = np.clip(table, -1.0, 1.0)
    values = np.polynomial.polynomial.polyval(powers, rest**2)
    left = max(0.0, second - float(coefficients @ coefficients))
    values = values + left * np.sign(powers) * np.abs(powers) ** (_DEGREE + 1)
    linear = coefficients[1] / math.sqrt(variance)
    atoms = tuple(a for axis in x.axes for a in axis)
    terms = {t: linear * c for t, c in x.terms.items()}
    if values.flat[-1] > 1e-14 * max(second, 1e-300):
        own = max(0.0, slope - linear**2) * x.slope
        spread = moved(powers) * x.spread(atoms) / variance
        base = Base([a.size for a in atoms], values, own, x.sources, spread=spread)
        terms[Term(base, tuple((a,) for a in atoms))] = 1.0
    return Field(x.axes, float(coefficients[0]), terms, x.parameters)


@functools.lru_cache(maxsize=4096)
def hermite_of(fn: Expression, mean: float, variance: float) -> tuple[np.ndarray, float, float]:
    """Hermite coefficients of fn(mean + sqrt(variance) z), E[fn^2] and E[fn'^2]."""
    activation: Activation = get(fn)
    scale = math.sqrt(variance)
    reach = REACH * scale
    try:
        places = edges(activation, abs(mean) + reach)
    except (TypeError, ValueError, FloatingPointError) as error:
        raise Unknown(f"{fn.__name__}: {error}") from None
    places = places[(places > mean - reach) & (places < mean + reach)]
    z, w, polynomials = hermite_rule(places - mean, scale, _DEGREE)
    phi, slope = evaluate(activation, mean + scale * z)
    seen = w > 1e-18
    if not np.isfinite(phi[seen]).all():
        raise Unknown(f"{fn.__name__} is not finite on all of its argument")
    phi = np.where(np.isfinite(phi), phi, 0.0)
    slope = np.where(np.isfinite(slope), slope, 0.0)
    with np.errstate(over="ignore"):
        second = float(w @ (phi * phi))
        squared = float(w @ (slope * slope))
    if not (math.isfinite(second) and math.isfinite(squared)):
        raise Unknown(f"the second moment of {fn.__name__} is not finite")
    return polynomials @ (w * phi), second, squared


def monotone(fn: Expression, x: Field) -> int:
    """1 where fn does not fall on the argument's range, -1 where it does not rise, 0 otherwise."""
    reach = 6.0 * math.sqrt(x.variance)
    phi, _ = evaluate(get(fn), np.linspace(x.mean - reach, x.mean + reach, 512))
    steps = np.diff(phi)
    small = 1e-12 * np.abs(phi).max(initial=0.0)
    return 1 if (steps >= -small).all() else -1 if (steps <= small).all() else 0
