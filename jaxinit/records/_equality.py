"""Records compare by what they say: every field but their provenance."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxinit.records._codec import is_array


class ByValue:
    """A frozen dataclass with arrays in its fields: `==` and `hash` by value, nan equal to nan.

    `provenance` (versions, device, date) tells where a record comes from and does not count.
    """

    def __eq__(self, other: object) -> bool:
        return same(self, other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        values = (getattr(self, f.name) for f in _compared(self))
        return hash((type(self).__name__, *(v for v in values if isinstance(v, (int, str)))))


def _compared(record: Any) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(record) if f.init and f.name != "provenance"]


def same(a: Any, b: Any) -> bool:
    """Whether two values of a record, arrays and records within them, are equal; nan is equal to nan.

    Example:
        >>> import numpy as np
        >>> from jaxinit.records._equality import same
        >>> same({"q": (np.array([1.0, np.nan]), 2)}, {"q": (np.array([1.0, np.nan]), 2)})
        True
        >>> same(np.zeros(2), np.zeros((2, 1)))
        False
    """
    if a is b:
        return True
    if is_array(a) or is_array(b):
        return is_array(a) and is_array(b) and _same_arrays(np.asarray(a), np.asarray(b))
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in _compared(a))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)


def _same_arrays(a: np.ndarray, b: np.ndarray) -> bool:
    numbers = a.dtype.kind in "fc"
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=numbers))
