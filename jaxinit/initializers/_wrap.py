"""Initializers made of initializers: a factor, a finer view of the shape, a stream of its own."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw
from jaxinit.initializers._base import Initializer, Law, initializer, times, working_dtype

__all__ = ["as_initializer", "distinct", "scaled", "split"]


@initializer
class Foreign(Initializer):
    """A callable of another library, as a record; its law is not known."""

    fn: Any = static()

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        drawn = jnp.asarray(self.fn(key, shape, working_dtype(dtype)))
        if drawn.shape != shape:
            rule = f"a function that returns the shape it is asked for, {shape}"
            raise checks.bad("get", "spec", rule, self.fn, f"It returned {drawn.shape}.")
        return times(drawn.astype(working_dtype(dtype)), factor).astype(dtype)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "get", (self.fn,), {}


def as_initializer(where: str, init: Any) -> Initializer:
    """A record for whatever `get` understands."""
    from jaxinit.initializers._catalogue import resolve

    found = resolve(where, "init", init)
    return found if isinstance(found, Initializer) else Foreign(found)


class Wrapper(Initializer):
    """An initializer around `init`; axes and shape checks go to the inner one."""

    init: Any

    def law(self, shape: Sequence[int]) -> Law | None:
        return self.init.law(shape)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self.init._check_shape(shape)

    def _around(self, init: Initializer) -> Initializer:
        """The same wrapper around another initializer."""
        raise NotImplementedError

    def _with_axes(self, **changes: Any) -> Initializer:
        return self._around(self.init._with_axes(**changes))


def scaled_law(law: Law | None, by: Any) -> Law | None:
    """The law of `by` times a draw."""
    if law is None:
        return None
    return Law(law.stddev * abs(by), law.mean * by, law.kind, law.distribution)


@initializer
class Scaled(Wrapper):
    """`by` times the draw of `init`."""

    init: Any = leaf()
    by: Any = leaf()

    def law(self, shape: Sequence[int]) -> Law | None:
        return scaled_law(self.init.law(shape), self.by)

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        by = _draw.as_scalar(self.by, working_dtype(dtype))
        return self.init._sample(key, shape, dtype, _draw.product(by, factor))

    def _around(self, init: Initializer) -> Initializer:
        return Scaled(init, self.by)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "scaled", (self.init, self.by), {}


@initializer
class Distinct(Wrapper):
    """`init` with a key that depends on the shape."""

    init: Any = leaf()

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        name = zlib.crc32(repr(shape).encode())
        return self.init._sample(jax.random.fold_in(key, name), shape, dtype, factor)

    def _around(self, init: Initializer) -> Initializer:
        return Distinct(init)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "distinct", (self.init,), {}


@initializer
class Split(Wrapper):
    """`init` drawn with one axis seen as several, then reshaped back."""

    init: Any = leaf()
    axis: int = static(default=0)
    sizes: tuple[int, ...] = static(default=(-1,))

    def _finer(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not -len(shape) <= self.axis < len(shape):
            raise checks.bad("split", "axis", f"an axis of the shape {shape}", self.axis)
        axis = self.axis % len(shape)
        known = math.prod(s for s in self.sizes if s != -1)
        sizes = tuple(shape[axis] // known if s == -1 else s for s in self.sizes)
        if math.prod(sizes) != shape[axis]:
            raise checks.bad(
                "split", "sizes", f"a factorization of {shape[axis]} (axis {axis} of {shape})", self.sizes
            )
        return (*shape[:axis], *sizes, *shape[axis + 1 :])

    def law(self, shape: Sequence[int]) -> Law | None:
        law = self.init.law(self._finer(tuple(shape)))
        return None if law is None or law.kind == "orthogonal" else law

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self.init._check_shape(self._finer(shape))

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        return self.init._sample(key, self._finer(shape), dtype, factor).reshape(shape)

    def _around(self, init: Initializer) -> Initializer:
        return Split(init, self.axis, self.sizes)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return "split", (self.init, self.axis, self.sizes), {}


def scaled(init: Any, by: Any) -> Initializer:
    """`by` times the draw of `init`, rounded once.

    Args:
        init: an initializer, or the name of one.
        by: a finite number (0 gives zeros).

    Example:
        >>> from jaxinit.initializers import he_normal, scaled
        >>> round(scaled(he_normal(), 0.5).law((200, 7)).stddev, 12)
        0.05
    """
    return Scaled(as_initializer("scaled", init), checks.number("scaled", "by", by))


def distinct(init: Any) -> Initializer:
    """`init` with a stream of its own for every shape.

    One key draws (8, 4) as the continuation of (4, 4): with threefry the smaller draw is a prefix of the larger.
    Layers that share a key and differ in width are then correlated. `distinct` folds the shape into the key, so
    that they are independent; equal shapes still need different keys.

    Example:
        >>> import jax
        >>> from jaxinit.initializers import distinct, normal
        >>> key = jax.random.key(0)
        >>> bool((normal(1.0)(key, (4, 4)) == normal(1.0)(key, (8, 4))[:4]).all())
        True
        >>> bool((distinct(normal(1.0))(key, (4, 4)) == distinct(normal(1.0))(key, (8, 4))[:4]).any())
        False
    """
    return Distinct(as_initializer("distinct", init))


def split(init: Any, axis: int, sizes: Sequence[int]) -> Initializer:
    """`init` drawn for the shape in which `axis` is seen as axes of `sizes` (one may be -1), then reshaped back.

    For layers that hand the initializer a flattened shape. The axes named in `init` are those of the finer shape.

    Raises:
        ValueError: if `sizes` has not at most one -1 and positive numbers; when called, if they do not factor the
            axis.

    Example:
        >>> from jaxinit.initializers import lecun_normal, split
        >>> round(split(lecun_normal(batch_axis=0), 0, (16, -1)).law((1600, 8)).stddev, 12)
        0.1
    """
    try:
        found = tuple(checks.integer("split", "sizes", s) for s in sizes)
    except TypeError:
        raise checks.wrong_type("split", "sizes", "a sequence of integers", sizes) from None
    if not found or sum(s == -1 for s in found) > 1 or any(s < 1 and s != -1 for s in found):
        raise checks.bad("split", "sizes", "positive numbers, at most one of them -1", sizes)
    return Split(as_initializer("split", init), checks.integer("split", "axis", axis), found)
