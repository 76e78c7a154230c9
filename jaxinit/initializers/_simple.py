"""Laws that ask for no fan: constants, normal, uniform, truncated normal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw
from jaxinit.initializers._base import Initializer, Law, initializer, is_concrete, times, working_dtype

__all__ = ["constant", "normal", "ones", "truncated_normal", "uniform", "zeros"]


@initializer
class Constant(Initializer):
    """Every entry is `value`, broadcast to the shape; the key is not used."""

    value: Any = leaf()

    any_dtype = True
    needs_key = False

    def law(self, shape: Sequence[int]) -> Law | None:
        return Law(0.0, self.value, "constant", "constant") if np.ndim(self.value) == 0 else None

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        have = np.shape(self.value)
        padded = (1,) * (len(shape) - len(have)) + have
        if len(have) > len(shape) or any(h not in (1, s) for h, s in zip(padded, shape, strict=True)):
            raise checks.bad("constant", "value", f"broadcastable to the shape {shape} asked for", have)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        value = self.value
        if jnp.iscomplexobj(value) and not jnp.issubdtype(dtype, jnp.complexfloating):
            raise checks.wrong_type("constant", "dtype", f"complex, to hold {value!r}", dtype.name)
        if not jnp.issubdtype(dtype, jnp.inexact):
            if is_concrete(value, factor):
                asked = np.asarray(value) * np.asarray(factor)
                if not np.array_equal(asked.astype(dtype), asked):
                    raise checks.wrong_type("constant", "dtype", f"able to hold {value!r}", dtype.name)
            return jnp.broadcast_to(jnp.asarray(value).astype(dtype), shape)
        if isinstance(factor, float) and factor == 1.0 and is_concrete(value):
            # rounded once, from the value as it was given
            with np.errstate(over="ignore"):
                return jnp.broadcast_to(jnp.asarray(np.asarray(value).astype(dtype)), shape)
        x = jnp.asarray(value).astype(working_dtype(dtype))
        return jnp.broadcast_to(times(x, factor).astype(dtype), shape)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        if isinstance(self.value, float) and self.value in (0.0, 1.0):
            return ("ones" if self.value else "zeros"), (), {}
        return "constant", (self.value,), {}


@initializer
class Normal(Initializer):
    """Independent normal entries."""

    stddev: Any = leaf()
    mean: Any = leaf(default=0.0)

    def law(self, shape: Sequence[int]) -> Law | None:
        return Law(self.stddev, self.mean, _kind("gaussian", self.mean), "normal")

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        return _shifted(key, self.stddev, self.mean, 0.0, 2.0, "normal", shape, dtype, factor)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "normal", (self.stddev,), {} if _is(self.mean, 0.0) else {"mean": self.mean}


@initializer
class Uniform(Initializer):
    """Independent entries uniform on [low, high)."""

    low: Any = leaf()
    high: Any = leaf()

    def law(self, shape: Sequence[int]) -> Law | None:
        mean = (self.low + self.high) / 2
        return Law((self.high - self.low) / math.sqrt(12), mean, _kind("iid", mean), "uniform")

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            if not (is_concrete(self.low, self.high) and float(self.low) == -float(self.high)):
                raise checks.bad(
                    "uniform",
                    "dtype",
                    "real unless low = -high (complex: uniform on the disc |z| < high)",
                    dtype.name,
                )
            scale = _draw.as_scalar(self.high / math.sqrt(2), work)
            scale = _draw.product(scale, factor)
            return _draw.draw(key, scale, 0.0, 0.0, 1.0, distribution="uniform", shape=shape, dtype=dtype)
        low, high = _draw.as_scalar(self.low, work), _draw.as_scalar(self.high, work)
        return _draw.draw(key, factor, 0.0, low, high, distribution="uniform", shape=shape, dtype=dtype)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "uniform", (self.low, self.high), {}


@initializer
class TruncatedNormal(Initializer):
    """Independent normal entries conditioned on an interval given in units of the standard deviation."""

    stddev: Any = leaf()
    lower: float = static(default=-2.0)
    upper: float = static(default=2.0)
    mean: Any = leaf(default=0.0)
    corrected: bool = static(default=False)

    def _standard(self) -> tuple[float, float]:
        return _draw.truncated_moments(self.lower, self.upper)

    def law(self, shape: Sequence[int]) -> Law | None:
        if self.corrected:
            stddev, mean = self.stddev, self.mean
        else:
            m, s = self._standard()
            m = 0.0 if self.lower == -self.upper else m
            stddev, mean = self.stddev * s, self.mean + m * self.stddev
        return Law(stddev, mean, _kind("iid", mean), "truncated_normal")

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        stddev, mean = self.stddev, self.mean
        if jnp.issubdtype(dtype, jnp.complexfloating):
            if self.lower != -self.upper:
                raise checks.bad(
                    "truncated_normal",
                    "dtype",
                    "real unless lower = -upper (complex: |z| < upper)",
                    dtype.name,
                )
            if self.corrected:
                stddev = stddev / _draw.complex_truncated_stddev(self.upper)
        elif self.corrected:
            m, s = self._standard()
            stddev = stddev / s
            mean = mean if self.lower == -self.upper else mean - m * stddev
        return _shifted(key, stddev, mean, self.lower, self.upper, "truncated_normal", shape, dtype, factor)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        kwargs: dict[str, Any] = {}
        if (self.lower, self.upper) != (-2.0, 2.0):
            kwargs |= {"lower": self.lower, "upper": self.upper}
        if not _is(self.mean, 0.0):
            kwargs["mean"] = self.mean
        if self.corrected:
            kwargs["corrected"] = True
        return "truncated_normal", (self.stddev,), kwargs


def _is(value: Any, known: float) -> bool:
    return isinstance(value, float) and value == known


def _kind(kind: str, mean: Any) -> str:
    return kind if is_concrete(mean) and float(mean) == 0 else "iid_shifted"


def _shifted(
    key: Any, stddev: Any, mean: Any, lower: float, upper: float, distribution: str, shape: tuple[int, ...],
    dtype: np.dtype, factor: Any,
) -> jax.Array:  # fmt: skip
    work = working_dtype(dtype)
    scale = _draw.product(_draw.as_scalar(stddev, work), factor)
    shifted = not _is(mean, 0.0)
    shift = _draw.product(_draw.as_scalar(mean, work), factor) if shifted else 0.0
    return _draw.draw(
        key, scale, shift, lower, upper, distribution=distribution, shape=shape, dtype=dtype, shifted=shifted
    )


def zeros(*direct: Any, **named: Any) -> Any:
    """The initializer of zeros: `zeros()`, or at once as an array: `zeros(key, shape, dtype)`.

    The second form is `jax.nn.initializers.zeros`, which is the initializer itself and no factory, so that
    code that passes `zeros` without calling it keeps working.

    Example:
        >>> from jaxinit.initializers import zeros
        >>> zeros()(None, (2,))
        Array([0., 0.], dtype=float32)
    """
    return Constant(0.0)(*direct, **named) if direct or named else Constant(0.0)


def ones(*direct: Any, **named: Any) -> Any:
    """The initializer of ones: `ones()`, or at once as an array: `ones(key, shape, dtype)`, see `zeros`.

    Example:
        >>> from jaxinit.initializers import ones
        >>> ones()(None, (2,))
        Array([1., 1.], dtype=float32)
    """
    return Constant(1.0)(*direct, **named) if direct or named else Constant(1.0)


def constant(value: Any) -> Initializer:
    """Every entry is `value`: a number, or an array that is broadcast to the shape asked for.

    Raises:
        TypeError: if `value` is no number and no array of numbers.
        ValueError: if it is not finite, or (when called) does not broadcast to the shape.

    Example:
        >>> from jaxinit.initializers import constant
        >>> constant(0.5)
        constant(0.5)
    """
    if isinstance(value, jax.core.Tracer):
        return Constant(value)
    if isinstance(value, (str, bytes, bool)) or value is None or callable(value):
        raise checks.wrong_type("constant", "value", "a number or an array of numbers", value)
    try:
        array = np.asarray(value)
        number = bool(jnp.issubdtype(array.dtype, jnp.number))
    except (TypeError, ValueError):
        number = False
    if not number:
        raise checks.wrong_type("constant", "value", "a number or an array of numbers", value)
    if not np.all(np.isfinite(array.astype(complex))):
        raise checks.bad("constant", "value", "finite", value)
    if array.ndim == 0 and not np.iscomplexobj(array):
        return Constant(float(array))
    return Constant(complex(array) if array.ndim == 0 else array)


def normal(stddev: Any = 1e-2, *, mean: Any = 0.0) -> Initializer:
    """Independent normal entries, `w ~ N(mean, stddev^2)`.

    float32 draws equal `jax.nn.initializers.normal(stddev)` bit for bit; complex draws have E|w - mean|^2 =
    stddev^2.

    Args:
        stddev: standard deviation, at least 0; the default 0.01 is JAX's and the "random" of textbooks.
        mean: mean.

    Raises:
        TypeError, ValueError: if an argument is not a finite number in its range.

    Example:
        >>> from jaxinit.initializers import normal
        >>> normal(0.02)
        normal(0.02)
        >>> normal(0.02).law((64, 64)).kind
        'gaussian'
    """
    way_out = "The factory comes first: normal(stddev)(key, shape)."
    s = checks.number("normal", "stddev", stddev, at_least=0, way_out=way_out)
    return Normal(s, checks.number("normal", "mean", mean))


def uniform(low: Any = 0.0, high: Any = 1e-2) -> Initializer:
    """Independent entries, `w ~ U[low, high)`; complex: uniform on the disc |w| < high, for low = -high.

    `jax.nn.initializers.uniform(s)` is `uniform(0, s)`, one-sided, and has the same bits here. Keras'
    RandomUniform default is `uniform(-0.05, 0.05)`.

    Raises:
        TypeError, ValueError: unless both are finite numbers with low < high.

    Example:
        >>> from jaxinit.initializers import uniform
        >>> uniform(-0.05, 0.05)
        uniform(-0.05, 0.05)
    """
    lo, hi = checks.number("uniform", "low", low), checks.number("uniform", "high", high)
    if is_concrete(lo, hi) and not float(lo) < float(hi):
        raise checks.bad("uniform", "low", f"below high, which is {float(hi)!r}", low,
                         "JAX's one-sided uniform(s) is uniform(0, s).")  # fmt: skip
    return Uniform(lo, hi)


def truncated_normal(
    stddev: Any = 1e-2, lower: float = -2.0, upper: float = 2.0, *, mean: Any = 0.0, corrected: bool = False
) -> Initializer:
    """`w = mean + stddev * x`, x standard normal conditioned on `lower < x < upper`, independent.

    The bounds are in units of `stddev`, as in JAX and TensorFlow (PyTorch's are absolute: pass
    `(a - mean) / stddev`). Truncation narrows the law: with (-2, 2) the standard deviation of w is 0.8796
    stddev. With `corrected=True` the mean and the standard deviation of w are exactly `mean` and `stddev`,
    for any bounds. Complex entries, for lower = -upper: a complex normal conditioned on `|x| < upper`, E|x|^2
    = 1 before.

    float32 draws equal `jax.nn.initializers.truncated_normal(stddev, lower=lower, upper=upper)` bit for bit.

    Raises:
        TypeError, ValueError: if an argument is not a number in its range, or lower is not below upper.

    Example:
        >>> from jaxinit.initializers import truncated_normal
        >>> round(truncated_normal(1.0).law((8, 8)).stddev, 6)
        0.879626
        >>> truncated_normal(0.02, corrected=True).law((8, 8)).stddev
        0.02
    """
    where = "truncated_normal"
    way_out = "The factory comes first: truncated_normal(stddev)(key, shape)."
    s = checks.number(where, "stddev", stddev, at_least=0, way_out=way_out)
    lo = float(checks.number(where, "lower", lower))
    hi = float(checks.number(where, "upper", upper))
    if not lo < hi:
        raise checks.bad(
            where, "lower", f"below upper, which is {hi!r}", lower, "Both are in units of stddev."
        )
    if max(lo, -hi) > 5:
        raise checks.bad(
            where, "lower", "an interval that reaches within 5 standard deviations of the mean", (lo, hi)
        )
    return TruncatedNormal(
        s, lo, hi, checks.number(where, "mean", mean), checks.flag(where, "corrected", corrected)
    )
