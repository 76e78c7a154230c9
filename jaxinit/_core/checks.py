"""One phrasing for every refusal: the argument, the rule, the value, the way out."""

from __future__ import annotations

import difflib
import math
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "bad", "choice", "flag", "integer", "is_concrete", "named", "nearest", "number", "path", "reals",
    "require_threefry", "seeds", "shape", "shown", "wrong_type",
]  # fmt: skip

#: The most layers, units or rows of anything: JAX counts in int32.
MOST = 2**31 - 1
#: Characters of a value that a message shows.
_SHOWN = 200

T = TypeVar("T")


def shown(value: Any, typed: bool = False) -> str:
    """What a message shows of a value: its repr on one line; if it is long without the middle, and with its type."""
    kind = f" of type {type(value).__name__}"
    try:
        text = re.sub(r"\s*\n\s*", " ", repr(value))
    except Exception:  # of an integer of thousands of digits, or of an object half made
        return "a value" + kind
    if len(text) > _SHOWN:
        half = _SHOWN // 2 - 3
        text, typed = f"{text[:half]} ... {text[-half:]}", True
    return text + kind if typed else text


def bad(where: str, argument: str, rule: str, value: Any, way_out: str = "") -> ValueError:
    """The ValueError for a value that breaks a rule: raise what this returns."""
    text = f"`{where}({argument}=...)` must be {rule}, got {shown(value)}."
    return ValueError(f"{text} {way_out}".rstrip())


def wrong_type(where: str, argument: str, rule: str, value: Any, way_out: str = "") -> TypeError:
    """The TypeError for a value of the wrong kind: raise what this returns."""
    text = f"`{where}({argument}=...)` must be {rule}, got {shown(value, typed=True)}."
    return TypeError(f"{text} {way_out}".rstrip())


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """A sentence that offers the names most like `name`, or all of them when none is near."""
    known = sorted(names)
    close = difflib.get_close_matches(str(name).lower(), known, n=count, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "Known names: " + ", ".join(known) + "."


def named(what: str, name: str, there: Mapping[str, T]) -> T:
    """The entry of this name; a KeyError offers the nearest."""
    if name not in there:
        raise KeyError(f"no {what} {shown(name)}. {nearest(name, there)}")
    return there[name]


def choice(where: str, argument: str, value: Any, options: Sequence[str]) -> str:
    """`value` if it is one of `options`."""
    if isinstance(value, str) and value in options:
        return value
    quoted = [repr(o) for o in options]
    rule = quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
    hint = ""
    if isinstance(value, str):
        close = difflib.get_close_matches(value, options, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}?" if close else ""
    raise bad(where, argument, rule, value, hint)


def is_concrete(value: Any) -> bool:
    """Whether the value can be looked at now (it is no tracer)."""
    return not isinstance(value, jax.core.Tracer)


def number(
    where: str,
    argument: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    way_out: str = "",
) -> Any:
    """A finite real scalar within bounds, as a Python float; tracers and arrays pass unchanged if scalar.

    Raises TypeError for what is not a real scalar, ValueError for a value out of bounds or not finite.
    """
    if isinstance(value, (bool, np.bool_, str, bytes)) or value is None:
        raise wrong_type(where, argument, "a real number", value, way_out)
    if isinstance(value, jax.Array):
        real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
        if value.shape != () or not real:
            raise wrong_type(where, argument, "a real scalar", value, way_out)
        if not is_concrete(value):
            return value
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise wrong_type(where, argument, "a real number", value, way_out) from None
    except OverflowError:  # an integer beyond all floats
        x = math.inf
    rules = []
    ok = math.isfinite(x)
    for bound, holds, words in (
        (above, lambda b: x > b, "greater than"),
        (at_least, lambda b: x >= b, "at least"),
        (below, lambda b: x < b, "less than"),
        (at_most, lambda b: x <= b, "at most"),
    ):
        if bound is not None:
            rules.append(f"{words} {bound:g}")
            ok = ok and holds(bound)
    if not ok:
        raise bad(
            where, argument, "a finite number" + (" " if rules else "") + " and ".join(rules), value, way_out
        )
    return value if isinstance(value, jax.Array) else x


def reals(
    where: str, argument: str, value: Any, *, at_least: float | None = None, at_most: float | None = None
) -> Any:
    """Real numbers within bounds: one number as `number` reads it, else an array, also from a sequence.

    In arrays nan and inf pass (a grid may have holes), and so does what leaves the bounds by a rounding of its dtype.
    Tracers pass unchanged.
    """
    if isinstance(value, jax.core.Tracer) and value.ndim:
        return value
    several = isinstance(value, (list, tuple, range)) or (
        isinstance(value, (np.ndarray, jax.Array)) and value.ndim > 0
    )
    if not several:
        return number(where, argument, value, at_least=at_least, at_most=at_most)
    rule = "real numbers"
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except (TypeError, ValueError):
        raise wrong_type(where, argument, rule, value) from None
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise wrong_type(where, argument, rule, value)
    seen = np.asarray(array).astype(np.float64)
    slack = 4 * float(jnp.finfo(array.dtype).eps) if jnp.issubdtype(array.dtype, jnp.floating) else 0.0
    for bound, outside, words in (
        (at_least, lambda b: seen < b - slack * abs(b), "at least"),
        (at_most, lambda b: seen > b + slack * abs(b), "at most"),
    ):
        if bound is not None and (wrong := outside(bound)).any():
            raise bad(where, argument, f"{rule} of {words} {bound:g}", seen[wrong][:3].tolist())
    return array


def flag(where: str, argument: str, value: Any) -> bool:
    """True or False, Python's or NumPy's: "no" and 0 are neither."""
    if not isinstance(value, (bool, np.bool_)):
        raise wrong_type(where, argument, "True or False", value)
    return bool(value)


def integer(
    where: str, argument: str, value: Any, *, at_least: int | None = None, at_most: int | None = None,
    way_out: str = "",
) -> int:  # fmt: skip
    """An integer (Python's or NumPy's) within bounds, as a Python int."""
    rule = "an integer" + ("" if at_least is None else f" of at least {at_least}")
    if isinstance(value, (bool, np.bool_)):
        raise wrong_type(where, argument, rule, value, way_out)
    try:
        n = operator.index(value)
    except TypeError:
        raise wrong_type(where, argument, rule, value, way_out) from None
    if at_least is not None and n < at_least:
        raise bad(where, argument, rule, value, way_out)
    if at_most is not None and n > at_most:
        raise bad(where, argument, f"an integer of at most {at_most}", value, way_out)
    return n


def shape(where: str, argument: str, value: Any) -> tuple[int, ...]:
    """A shape as a tuple of Python ints: Flax passes lists and np.int64 too."""
    try:
        if isinstance(value, (str, bytes, set, frozenset, Mapping)):
            raise TypeError
        dims = tuple(operator.index(d) for d in value)
    except TypeError:
        raise wrong_type(where, argument, "a sequence of integers", value) from None
    if any(d < 0 for d in dims):
        raise bad(where, argument, "a sequence of integers of at least 0", value)
    return dims


def path(where: str, argument: str, value: Any) -> Path:
    """A path, `~` expanded."""
    if not isinstance(value, (str, os.PathLike)) or value == "":
        raise wrong_type(where, argument, "a path, as a string or a pathlib.Path", value)
    return Path(value).expanduser()


def seeds(where: str, argument: str, value: Any) -> np.ndarray:
    """Seeds as a 1-D uint32 array: a count n means 0 .. n-1, an array names the networks itself."""
    way_out = "Pass a count such as 16, or distinct non-negative integers such as np.arange(100, 116)."
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        count = integer(where, argument, value, at_least=1, way_out=way_out)
        if count > 2**32:
            raise bad(where, argument, "at most 2**32, the number of seeds that there are", value)
        return np.arange(count, dtype=np.uint32)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        raise wrong_type(where, argument, "a count or a 1-D array of integers", value, way_out) from None
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        rule = "a count or a 1-D array of integers"
        raise (
            wrong_type(where, argument, rule, value, way_out)
            if array.size
            else bad(where, argument, "not empty", value, way_out)
        )
    if array.size == 0:
        raise bad(where, argument, "not empty", value, way_out)
    if array.min() < 0 or array.max() > np.iinfo(np.uint32).max:
        raise bad(where, argument, "integers in [0, 2**32)", value, way_out)
    if np.unique(array).size != array.size:
        raise bad(where, argument, "distinct integers (a repeated seed is the same network)", value, way_out)
    return array.astype(np.uint32)


def require_threefry(where: str, argument: str, key: Any) -> Any:
    """A scalar threefry key, typed or raw uint32[2], returned typed.

    Keys of other generators are refused: under `vmap` rbg draws other numbers than one at a time, so a seed
    would no longer name a network.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape != ():
            raise bad(where, argument, "one key (shape ())", key.shape, "Map over keys with jax.vmap.")
        if "threefry" not in str(jax.random.key_impl(key)):
            raise bad(
                where, argument, "a threefry key", str(jax.random.key_impl(key)),
                "Make one with jax.random.key(0, impl='threefry2x32').",
            )  # fmt: skip
        return key
    if hasattr(key, "dtype") and key.dtype == np.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key), impl="threefry2x32")
    raise wrong_type(where, argument, "a jax.random key", key, "Make one with jax.random.key(0).")
