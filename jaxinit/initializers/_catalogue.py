"""Names: from a string, a config, a number or a callable to an initializer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxinit._core import checks
from jaxinit.initializers import (
    _depth,
    _fixed,
    _gain,
    _gates,
    _mirrored,
    _orthogonal,
    _scaling,
    _simple,
    _sparse,
    _stft,
    _structured,
    _width,
    _wrap,
)  # fmt: skip
from jaxinit.initializers._base import Initializer

__all__ = ["from_config", "get", "names"]

_FACTORIES: dict[str, Callable[..., Any]] = {
    "zeros": _simple.zeros,
    "ones": _simple.ones,
    "constant": _simple.constant,
    "normal": _simple.normal,
    "uniform": _simple.uniform,
    "truncated_normal": _simple.truncated_normal,
    "variance_scaling": _scaling.variance_scaling,
    "he_normal": _scaling.he_normal,
    "he_uniform": _scaling.he_uniform,
    "glorot_normal": _scaling.glorot_normal,
    "glorot_uniform": _scaling.glorot_uniform,
    "lecun_normal": _scaling.lecun_normal,
    "lecun_uniform": _scaling.lecun_uniform,
    "orthogonal": _orthogonal.orthogonal,
    "identity": _structured.identity,
    "dirac": _structured.dirac,
    "delta_orthogonal": _structured.delta_orthogonal,
    "hadamard": _structured.hadamard,
    "sparse": _sparse.sparse,
    "looks_linear": _mirrored.looks_linear,
    "icnr": _mirrored.icnr,
    "siren": _fixed.siren,
    "stft": _stft.stft,
    "random_walk": _fixed.random_walk,
    "spectral_normal": _fixed.spectral_normal,
    "small": _fixed.small,
    "wang": _fixed.wang,
    "torch_kernel": _fixed.torch_kernel,
    "torch_bias": _fixed.torch_bias,
    "forget_bias": _gates.forget_bias,
    "chrono": _gates.chrono,
    "scaled": _wrap.scaled,
    "distinct": _wrap.distinct,
    "split": _wrap.split,
    "residual": _depth.residual,
    "mup": _width.mup,
    "scaled_for": _gain.scaled_for,
}

#: Functions that make initializers and are none themselves, ours and JAX's.
_UNCALLED = [
    make
    for name, make in [*_FACTORIES.items(), *vars(jax.nn.initializers).items()]
    if callable(make) and name not in ("zeros", "ones")
]

_ALIASES: dict[str, str] = {
    "zero": "zeros",
    "one": "ones",
    "random": "normal",
    "random_normal": "normal",
    "random_uniform": "uniform",
    "he": "he_normal",
    "kaiming": "he_normal",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "xavier": "glorot_normal",
    "glorot": "glorot_normal",
    "xavier_normal": "glorot_normal",
    "xavier_uniform": "glorot_uniform",
    "lecun": "lecun_normal",
    "eye": "identity",
    "pytorch": "torch_kernel",
}


def _needs_arguments(name: str) -> bool:
    parameters = inspect.signature(_FACTORIES[name]).parameters.values()
    plain = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    return any(p.default is inspect.Parameter.empty and p.kind in plain for p in parameters)


def factory(name: str) -> Callable[..., Any]:
    """The factory of a canonical name."""
    return _FACTORIES[name]


def names() -> tuple[str, ...]:
    """The names that `get` knows, aliases included, in alphabetical order.

    Example:
        >>> from jaxinit.initializers import names
        >>> {"he_normal", "random", "xavier", "orthogonal"} <= set(names())
        True
    """
    known = [n for n in _FACTORIES if not _needs_arguments(n)]
    return tuple(sorted([*known, *_ALIASES]))


def get(spec: Any) -> Any:
    """An initializer from a name, a config, an array or number, or a callable.

    Args:
        spec: a name of `names()`, case and style free ("he", "kaiming_uniform", "GlorotUniform",
            "OrthogonalInitializer"; "random" is `normal(0.01)`); a dict made by `to_config`; a number or array,
            which becomes `constant(...)`; or any callable `(key, shape, dtype)`, returned as it is.

    Raises:
        ValueError: for an unknown name, with the nearest known ones.
        TypeError: for anything else.

    Example:
        >>> from jaxinit.initializers import get
        >>> get("he"), get("xavier"), get("random")
        (he_normal(), glorot_normal(), normal(0.01))
    """
    return resolve("get", "spec", spec)


def resolve(where: str, argument: str, spec: Any) -> Any:
    """`get(spec)` for the function `where`, whose argument of this name the errors speak of."""
    if isinstance(spec, Initializer):
        return spec
    if isinstance(spec, str):
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", spec.strip()).lower()
        snake = re.sub(r"[\s\-]+", "_", snake).removesuffix("_initializer")
        name = _ALIASES.get(snake, snake)
        if name not in _FACTORIES:
            near = checks.nearest(snake, names())
            raise checks.bad(where, argument, "the name of an initializer", spec, near)
        if _needs_arguments(name):
            way_out = f"Call {name}(...) itself."
            raise checks.bad(where, argument, "a name that needs no arguments", spec, way_out)
        return _FACTORIES[name]()
    if isinstance(spec, Mapping):
        return from_config(spec)
    if isinstance(spec, (int, float, complex, np.ndarray, np.generic, jax.Array)) and not isinstance(
        spec, bool
    ):
        return _simple.constant(spec)
    if callable(spec):
        if isinstance(spec, type) or spec in _UNCALLED:
            name = getattr(spec, "__name__", "he_normal")
            raise checks.bad(where, argument, "an initializer, not its factory", spec, f"Call it: {name}().")
        return spec
    rule = "an initializer, its name or config, a number or an array"
    raise checks.wrong_type(where, argument, rule, spec)


def from_config(config: Mapping[str, Any]) -> Initializer:
    """The initializer that `to_config` described.

    Raises:
        ValueError: for an unknown name or arguments that the factory refuses.
        TypeError: for what is no config.

    Example:
        >>> from jaxinit.initializers import from_config, he_uniform
        >>> he_uniform(mode="fan_out").to_config()
        {'name': 'he_uniform', 'mode': 'fan_out'}
        >>> from_config({"name": "he_uniform", "mode": "fan_out"})
        he_uniform(mode='fan_out')
    """
    asked = config.get("name") if isinstance(config, Mapping) else None
    if not isinstance(asked, str):
        raise checks.wrong_type("from_config", "config", "a dict with a 'name'", config)
    arguments = {k: _decode(v) for k, v in config.items() if k != "name"}
    name = _ALIASES.get(asked, asked)
    if name not in _FACTORIES:
        raise checks.bad("from_config", "config", "the config of a known initializer", asked,
                         checks.nearest(name, _FACTORIES))  # fmt: skip
    make = _FACTORIES[name]
    try:
        inspect.signature(make).bind(**arguments)
    except TypeError as error:
        raise checks.bad(
            "from_config", "config", f"made of arguments of {name}", dict(config), str(error)
        ) from None
    return make(**arguments)


def _decode(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "array" in value and "dtype" in value:
            if value["dtype"] == "complex":
                return complex(*value["array"])
            return np.array(value["array"], dtype=value["dtype"])
        return from_config(value)
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    return value
