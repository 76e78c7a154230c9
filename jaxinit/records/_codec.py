"""Records to and from one file: arrays in an .npz, everything else in its JSON header. No pickle.

A value is None, bool, int, float, str, a list, tuple or str-keyed dict of values, a NumPy array, or a
registered record. The header holds the structure; arrays are members of the archive, named a0, a1, ...
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxinit._core import checks
from jaxinit._core.files import read_arrays, write_arrays

FORMAT = "jaxinit-record"
VERSION = 1

T = TypeVar("T")
_registry: dict[str, type] = {}
#: Records that areas above define, which register themselves when imported.
_ABOVE = {"FiniteWidth": "jaxinit.meanfield", "InitTable": "jaxinit.adapt"}


def saved(cls: type[T]) -> type[T]:
    """Class decorator: dataclasses of this class can stand in a saved file, under their class name."""
    _registry[cls.__name__] = cls
    return cls


def is_array(value: Any) -> bool:
    """Whether a file holds it as an array: NumPy's and JAX's, no scalars of NumPy."""
    return isinstance(value, np.ndarray) or (
        hasattr(value, "__array__") and not isinstance(value, np.generic)
    )


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        x = float(value)
        return x if math.isfinite(x) else {"!": "float", "value": repr(x)}
    if is_array(value):
        value = np.asarray(value)
        if value.dtype.hasobject:
            raise TypeError("arrays of Python objects cannot be saved; convert them to numbers or strings.")
        arrays.append(value)
        return {"!": "array", "value": len(arrays) - 1}
    if dataclasses.is_dataclass(value) and type(value).__name__ in _registry:
        inside = {
            f.name: _encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value) if f.init
        }
        return {"!": type(value).__name__, "value": inside}
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise TypeError(f"only dicts with str keys can be saved, got keys {list(value)!r}.")
        return {"!": "dict", "value": {k: _encode(v, arrays) for k, v in value.items()}}
    if isinstance(value, tuple):
        return {"!": "tuple", "value": [_encode(v, arrays) for v in value]}
    if isinstance(value, list):
        return [_encode(v, arrays) for v in value]
    raise TypeError(f"a {type(value).__name__} cannot be saved in a record: {value!r}.")


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    kind, inside = value["!"], value["value"]
    if kind == "float":
        return float(inside)
    if kind == "array":
        return arrays[f"a{inside}"]
    if kind == "tuple":
        return tuple(_decode(v, arrays) for v in inside)
    if kind == "dict":
        return {k: _decode(v, arrays) for k, v in inside.items()}
    if kind not in _registry and kind in _ABOVE:
        importlib.import_module(_ABOVE[kind])
    return _registry[kind](**{k: _decode(v, arrays) for k, v in inside.items()})


def write(path: str | os.PathLike[str], value: Any) -> Path:
    """Write a record atomically: a reader sees the old file or the new one, never a part of it."""
    target = checks.path("save", "path", path)
    arrays: list[np.ndarray] = []
    header = {"format": FORMAT, "version": VERSION, "content": _encode(value, arrays)}
    text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), dtype=np.uint8)
    write_arrays(target, {"header": text, **{f"a{i}": a for i, a in enumerate(arrays)}})
    return target


def read(path: str | os.PathLike[str]) -> Any:
    """Read what `write` wrote.

    Raises FileNotFoundError if there is no file, ValueError if it is foreign, truncated, damaged, or written
    by a newer version.
    """
    source = checks.path("load", "path", path)
    if source.is_dir():
        inside = ", ".join(str(found) for found in sorted(source.glob("*.npz"))[:4])
        way_out = f"Records in it: {inside}." if inside else "There are none in it."
        raise checks.bad("load", "path", "the file of a record, not a folder", str(source), way_out)
    if not source.is_file():
        raise FileNotFoundError(
            f"no record at {str(source)!r}: `jaxinit.load(path=...)` must name a saved record."
        )
    try:
        members = read_arrays(source)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{str(source)!r} is not a whole jaxinit record (truncated, damaged or another kind of file): {error}. "
            "Write it again with `record.save(path)`."
        ) from error
    try:
        header = json.loads(members.pop("header").tobytes().decode())
        version = header["version"] if header["format"] == FORMAT else None
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError):
        version = None
    if version is None:
        raise ValueError(f"{str(source)!r} is an .npz file but no jaxinit record: it has no jaxinit header.")
    if version > VERSION:
        raise ValueError(
            f"{str(source)!r} was written by a newer jaxinit (format {version}, this one reads up to {VERSION}): "
            "update jaxinit."
        )
    try:
        return _decode(header["content"], members)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{str(source)!r} has a jaxinit header but its content does not fit: {error!r}."
        ) from error
