"""Frozen records that are pytrees: numbers are leaves, choices are static.

A record compares and hashes by value, prints itself as the call that makes it, is picklable, and crosses
`jit`, `vmap` and `scan` without retracing when only its numbers change. Its `__init__` (and `__post_init__`)
may check; unflattening bypasses both, since jax unflattens records around tracers and placeholders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

T = TypeVar("T")

__all__ = ["leaf", "record", "static"]


def static(*, default: Any = dataclasses.MISSING, **kwargs: Any) -> Any:
    """A field that is a choice: part of the tree's structure, hashable."""
    return dataclasses.field(default=default, metadata={"static": True}, **kwargs)


def leaf(*, default: Any = dataclasses.MISSING, **kwargs: Any) -> Any:
    """A field that is a number (or a subtree of numbers): a leaf."""
    return dataclasses.field(default=default, metadata={"static": False}, **kwargs)


def _is_array(x: Any) -> bool:
    return isinstance(x, (np.ndarray, jax.Array))


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    if _is_array(a) or _is_array(b):
        if not (_is_array(a) and _is_array(b)):
            return False
        x, y = np.asarray(a), np.asarray(b)
        return x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes()
    return bool(a == b)


def _digest(x: Any) -> Any:
    if isinstance(x, jax.core.Tracer):
        return id(x)
    if _is_array(x):
        y = np.asarray(x)
        return (y.shape, y.dtype.str, y.tobytes())
    return x


@dataclass_transform(frozen_default=True, field_specifiers=(static, leaf, dataclasses.field))
def record(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass that is a pytree with value semantics.

    Fields made with `static(...)` are structure; all others are leaves, in the order of their definition.

    Example:
        >>> from jaxinit._core.struct import record, static
        >>> @record
        ... class Noise:
        ...     stddev: float
        ...     kind: str = static(default="normal")
        >>> Noise(0.1) == Noise(0.1), hash(Noise(0.1)) == hash(Noise(0.1))
        (True, True)
        >>> Noise(0.1)
        Noise(stddev=0.1, kind='normal')
    """
    own = set(vars(cls))
    new = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    fields = dataclasses.fields(new)  # type: ignore[arg-type]
    leaves = tuple(f.name for f in fields if not f.metadata.get("static", False))
    statics = tuple(f.name for f in fields if f.metadata.get("static", False))
    names = tuple(f.name for f in fields)

    def eq(self: Any, other: Any) -> Any:
        if type(self) is not type(other):
            return NotImplemented
        return all(_same(getattr(self, n), getattr(other, n)) for n in names)

    def digest(self: Any) -> int:
        return hash((type(self).__qualname__, *(_digest(getattr(self, n)) for n in names)))

    def show(self: Any) -> str:
        inside = ", ".join(f"{n}={getattr(self, n)!r}" for n in names)
        return f"{type(self).__name__}({inside})"

    methods: dict[str, Callable[..., Any]] = {"__eq__": eq, "__hash__": digest, "__repr__": show}
    for name, method in methods.items():
        if name not in own or (name == "__hash__" and vars(cls).get("__hash__") is None):
            setattr(new, name, method)

    def flatten_with_keys(x: Any) -> tuple[Any, Any]:
        return (
            tuple((jax.tree_util.GetAttrKey(n), getattr(x, n)) for n in leaves),
            tuple(getattr(x, n) for n in statics),
        )

    def flatten(x: Any) -> tuple[Any, Any]:
        return tuple(getattr(x, n) for n in leaves), tuple(getattr(x, n) for n in statics)

    def unflatten(aux: Any, children: Any) -> Any:
        x = object.__new__(new)
        for n, v in zip(leaves, children, strict=True):
            object.__setattr__(x, n, v)
        for n, v in zip(statics, aux, strict=True):
            object.__setattr__(x, n, v)
        return x

    jax.tree_util.register_pytree_with_keys(new, flatten_with_keys, unflatten, flatten)
    return new
