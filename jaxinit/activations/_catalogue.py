"""The catalogue: activations by name, and `get`, which turns whatever names one into its record."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core import checks
from jaxinit.activations._activation import Activation


def gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


def gelu_quick(x: jax.Array) -> jax.Array:
    return x * jax.nn.sigmoid(1.702 * x)


def hard_tanh(x: jax.Array, min_value: float = -1.0, max_value: float = 1.0) -> jax.Array:
    return jnp.where(x > max_value, max_value, jnp.where(x < min_value, min_value, x)).astype(x.dtype)


def threshold_relu(x: jax.Array, theta: float = 1.0) -> jax.Array:
    return jnp.where(x > theta, x, jnp.zeros_like(x))


def squared_relu(x: jax.Array) -> jax.Array:
    return jnp.square(jax.nn.relu(x))


def tanh_shrink(x: jax.Array) -> jax.Array:
    return x - jnp.tanh(x)


def soft_shrink(x: jax.Array, threshold: float = 0.5) -> jax.Array:
    return jax.nn.relu(x - threshold) - jax.nn.relu(-x - threshold)


def gaussian(x: jax.Array) -> jax.Array:
    return jnp.exp(-jnp.square(x))


def snake(x: jax.Array, frequency: float = 1.0) -> jax.Array:
    return x + jnp.square(jnp.sin(frequency * x)) / frequency


@dataclasses.dataclass(frozen=True)
class _Entry:
    fn: Callable[..., Any]
    defaults: dict[str, float] = dataclasses.field(default_factory=dict)
    kinks: Callable[..., tuple[float, ...]] = lambda **_: ()


def _at(*points: float) -> Callable[..., tuple[float, ...]]:
    return lambda **_: points


_entries: dict[str, _Entry] = {
    "identity": _Entry(jax.nn.identity),
    "relu": _Entry(jax.nn.relu, kinks=_at(0.0)),
    "leaky_relu": _Entry(jax.nn.leaky_relu, {"negative_slope": 0.01}, _at(0.0)),
    "prelu": _Entry(jax.nn.leaky_relu, {"negative_slope": 0.25}, _at(0.0)),
    "relu6": _Entry(jax.nn.relu6, kinks=_at(0.0, 6.0)),
    "squared_relu": _Entry(squared_relu, kinks=_at(0.0)),
    "threshold_relu": _Entry(threshold_relu, {"theta": 1.0}, lambda theta: (theta,)),
    "abs": _Entry(jnp.abs, kinks=_at(0.0)),
    "elu": _Entry(jax.nn.elu, {"alpha": 1.0}, _at(0.0)),
    "celu": _Entry(jax.nn.celu, {"alpha": 1.0}, _at(0.0)),
    "selu": _Entry(jax.nn.selu, kinks=_at(0.0)),
    "gelu": _Entry(gelu),
    "gelu_tanh": _Entry(gelu_tanh),
    "gelu_quick": _Entry(gelu_quick),
    "silu": _Entry(jax.nn.silu),
    "mish": _Entry(jax.nn.mish),
    "softplus": _Entry(jax.nn.softplus),
    "squareplus": _Entry(jax.nn.squareplus, {"b": 4.0}),
    "snake": _Entry(snake, {"frequency": 1.0}),
    "tanh": _Entry(jnp.tanh),
    "hard_tanh": _Entry(
        hard_tanh, {"min_value": -1.0, "max_value": 1.0}, lambda min_value, max_value: (min_value, max_value)
    ),
    "tanh_shrink": _Entry(tanh_shrink),
    "soft_shrink": _Entry(soft_shrink, {"threshold": 0.5}, lambda threshold: (-threshold, threshold)),
    "sigmoid": _Entry(jax.nn.sigmoid),
    "hard_sigmoid": _Entry(jax.nn.hard_sigmoid, kinks=_at(-3.0, 3.0)),
    "hard_silu": _Entry(jax.nn.hard_silu, kinks=_at(-3.0, 3.0)),
    "log_sigmoid": _Entry(jax.nn.log_sigmoid),
    "softsign": _Entry(jax.nn.soft_sign, kinks=_at(0.0)),
    "arctan": _Entry(jnp.arctan),
    "erf": _Entry(jax.scipy.special.erf),
    "sin": _Entry(jnp.sin),
    "cos": _Entry(jnp.cos),
    "gaussian": _Entry(gaussian),
}

_aliases: dict[str, str] = {
    "linear": "identity", "none": "identity", "leakyrelu": "leaky_relu", "relu_6": "relu6",
    "relu2": "squared_relu", "relu_squared": "squared_relu", "swish": "silu", "hard_swish": "hard_silu",
    "hardswish": "hard_silu", "hardtanh": "hard_tanh", "hardsigmoid": "hard_sigmoid",
    "logsigmoid": "log_sigmoid", "soft_sign": "softsign", "soft_plus": "softplus", "gelu_exact": "gelu",
    "gelu_new": "gelu_tanh", "gelu_approximate": "gelu_tanh", "quick_gelu": "gelu_quick", "absolute": "abs",
    "atan": "arctan", "tanhshrink": "tanh_shrink", "softshrink": "soft_shrink", "sine": "sin",
    "cosine": "cos",
}  # fmt: skip

#: Functions whose record is the catalogue's. `jax.nn.gelu` is the tanh approximation unless told otherwise.
_callables: dict[Any, str] = {
    **{entry.fn: name for name, entry in reversed(_entries.items())},
    jax.nn.gelu: "gelu_tanh", jax.nn.hard_swish: "hard_silu", jax.nn.swish: "silu", jax.nn.tanh: "tanh",
    jax.lax.tanh: "tanh", jax.lax.erf: "erf", jax.lax.logistic: "sigmoid", jax.lax.sin: "sin",
    jax.lax.cos: "cos", jnp.sin: "sin", jnp.cos: "cos", jnp.abs: "abs", jnp.absolute: "abs",
}  # fmt: skip


def names() -> tuple[str, ...]:
    """The names of the catalogue, without aliases.

    Example:
        >>> from jaxinit.activations import names
        >>> "relu" in names(), "gelu_tanh" in names(), "swish" in names()
        (True, True, False)
    """
    return tuple(_entries)


def get(spec: Any, **parameters: float) -> Activation:
    """The record of an activation.

    Args:
        spec: a name of the catalogue (`names()`, their usual aliases, any case), any elementwise JAX
            callable, or an `Activation`, returned as it is. A callable needs no derivative and no list of
            kinks: they are found. One of the catalogue's own functions (`jax.nn.relu`, `jnp.tanh`,
            `functools.partial(jax.nn.leaky_relu, negative_slope=0.2)`) gives the catalogue's record; mind
            that `jax.nn.gelu` is the tanh approximation, while the name "gelu" is the exact one.
        **parameters: the numbers the activation takes, such as `negative_slope` (leaky_relu, prelu) or
            `alpha` (elu, celu); its own defaults otherwise (leaky_relu: 0.01; prelu: 0.25, He et al. 2015).

    Raises:
        ValueError: for a name that is not in the catalogue, or a parameter the activation does not take.
        TypeError: for what is neither a name, a callable nor an Activation.

    Example:
        >>> import jax
        >>> from jaxinit.activations import get
        >>> get("swish") == get(jax.nn.silu)
        True
        >>> get("gelo")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: `get(spec=...)` must be the name of an activation, got 'gelo'. Did you mean ...
    """
    return _resolved("get", "spec", spec, parameters)


def resolve(where: str, spec: Any, argument: str = "activation") -> Activation:
    """`get(spec)` for the function `where`, whose argument of this name the errors speak of."""
    return _resolved(where, argument, spec, {})


def _resolved(where: str, argument: str, spec: Any, parameters: dict[str, float]) -> Activation:
    if isinstance(spec, Activation):
        if parameters:
            raise checks.bad(where, argument, "a name or a callable when parameters are given", spec)
        return spec
    if isinstance(spec, str):
        return _by_name(where, argument, spec, parameters)
    if not callable(spec) or isinstance(spec, type):
        rule = "a name, a JAX callable or an Activation"
        raise checks.wrong_type(where, argument, rule, spec, 'Pass a name such as "relu".')
    if isinstance(spec, functools.partial) and not spec.args:
        inner, given = spec.func, dict(spec.keywords)
        if inner is jax.nn.gelu and set(given) == {"approximate"} and not parameters:
            return _by_name(where, argument, "gelu_tanh" if given["approximate"] else "gelu", {})
        name = _known(where, argument, inner)
        if name is not None and set(given) <= set(_entries[name].defaults):
            return _by_name(where, argument, name, {**given, **parameters})
    name = _known(where, argument, spec)
    if name is not None:
        return _by_name(where, argument, name, parameters)
    called = getattr(spec, "__name__", None) or type(spec).__name__
    checked = tuple(sorted((k, checks.number(where, k, v)) for k, v in parameters.items()))
    if checked:
        _require_parameters(where, spec, called, parameters)
    if fault := _fault(spec, checked):
        rule = "an elementwise, real function of one array"
        raise checks.wrong_type(where, argument, rule, spec, f"Called with float32[4] it {fault}.")
    return Activation(str(called), spec, checked)


@functools.lru_cache(maxsize=256)
def _fault(fn: Any, parameters: tuple[tuple[str, float], ...]) -> str:
    """What keeps a callable from being an activation, seen in its shapes alone; "" if nothing does."""
    try:
        with jax.numpy_dtype_promotion("standard"):
            out = jax.eval_shape(lambda x: fn(x, **dict(parameters)), jax.ShapeDtypeStruct((4,), jnp.float32))
    except Exception as error:
        return f"raised {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    if not hasattr(out, "dtype"):
        return f"returned {type(out).__name__}"
    elementwise = out.shape == (4,) and jnp.issubdtype(out.dtype, jnp.floating)
    return "" if elementwise else f"returned {out.dtype.name}{list(out.shape)}"


def _known(where: str, argument: str, fn: Any) -> str | None:
    try:
        return _callables.get(fn)
    except TypeError:
        way_out = "Wrap it in a function: `lambda x: module(x)`."
        raise checks.wrong_type(where, argument, "a hashable callable", fn, way_out) from None


def _require_parameters(where: str, fn: Any, name: str, parameters: dict[str, float]) -> None:
    try:
        accepted = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        return
    for key in parameters:
        if key not in accepted:
            raise checks.bad(where, key, f"left out: {name} does not take it", parameters[key])


def _by_name(where: str, argument: str, spec: str, parameters: dict[str, float]) -> Activation:
    key = spec.strip().lower().replace("-", "_").replace(" ", "_")
    key = _aliases.get(key, key)
    if key not in _entries:
        near = checks.nearest(spec, [*_entries, *_aliases])
        raise checks.bad(where, argument, "the name of an activation", spec, near)
    entry = _entries[key]
    for name, value in parameters.items():
        if name not in entry.defaults:
            takes = ", ".join(entry.defaults) or "nothing"
            raise checks.bad(where, name, f"left out: {key} takes {takes}", value)
    merged = {n: checks.number(where, n, parameters.get(n, d)) for n, d in entry.defaults.items()}
    return Activation(key, entry.fn, tuple(merged.items()), tuple(entry.kinks(**merged)), True)
