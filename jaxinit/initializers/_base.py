"""What every initializer is: a frozen callable record that knows its law and prints the call that makes it.

An initializer is called `(key, shape, dtype=None, out_sharding=None)`, as Flax and JAX call theirs. The base
class does once what is the same for all: it reads shape, dtype and key, refuses what cannot work, draws in a
working precision of float32 or better, rounds once to the dtype asked for, and places the result on a mesh.
A scheme adds `_sample` (how to draw), `law` (what the entries are) and `_call` (which factory call makes it).
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxinit._core import checks
from jaxinit._core.struct import leaf, record, static

__all__ = ["Initializer", "InitializerLike", "Law", "initializer", "is_concrete", "times"]

T = TypeVar("T")


class InitializerLike(Protocol):
    """Anything that is called as JAX and Flax call an initializer."""

    def __call__(self, key: Any, shape: Sequence[int], dtype: Any = None) -> Any: ...


@record
class Law:
    """The law of the entries of one weight, known without drawing it.

    `kind` is

    - `"gaussian"`: independent normal entries of mean 0 and standard deviation `stddev`;
    - `"iid"`: independent entries of mean 0 and standard deviation `stddev`, not normal (`distribution`
      says);
    - `"orthogonal"`: `stddev` times a Haar-distributed semi-orthogonal matrix, for a 2-D shape (in, out) applied as
      `x @ w`: the rows or the columns, whichever are fewer, are orthonormal;
    - `"constant"`: every entry is `mean` (0 for zeros);
    - `"iid_shifted"`: independent entries of mean `mean`, not 0, and standard deviation `stddev` about it.
    """

    stddev: Any = leaf()
    mean: Any = leaf(default=0.0)
    kind: str = static(default="gaussian")
    distribution: str = static(default="normal")


def is_concrete(*values: Any) -> bool:
    """Whether all values can be looked at now."""
    return all(checks.is_concrete(v) for v in jax.tree.leaves(values))


def times(x: jax.Array, factor: Any) -> jax.Array:
    """`x * factor`, rounded as one product whether compiled alone or inside a larger program.

    A compiler may rewrite `(x * a) * b` as `x * (a * b)`, so that a draw would differ in its last bit between
    `jit` and eager execution. The clamp, which no finite number notices, stands between the two products.
    """
    if isinstance(factor, float) and factor == 1.0:
        return x
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return jax.lax.complex(times(x.real, factor), times(x.imag, factor))
    big = np.finfo(x.dtype).max
    return jnp.clip(x, -big, big) * jnp.asarray(factor, x.dtype)


def working_dtype(dtype: np.dtype) -> np.dtype:
    """float32 for real dtypes up to 32 bits, else the dtype itself."""
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits <= 32
    return np.dtype(np.float32) if narrow else dtype


def _read_dtype(where: str, dtype: Any, any_number: bool) -> np.dtype:
    """The dtype of the result; 64-bit dtypes need x64 and warn, as everywhere in JAX, where it is off."""
    wide = jnp.result_type(float)
    if dtype is None:
        return np.dtype(wide)
    rule = "a dtype such as jnp.float32"
    if isinstance(dtype, (jax.Array, np.ndarray, list, tuple, dict)):
        raise checks.wrong_type(where, "dtype", rule, dtype)
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        raise checks.wrong_type(where, "dtype", rule, dtype) from None
    if not (jnp.issubdtype(found, jnp.number) or found == np.bool_):
        raise checks.wrong_type(where, "dtype", rule, dtype)
    if not jnp.issubdtype(found, jnp.inexact) and not any_number:
        raise checks.wrong_type(
            where, "dtype", "a real or complex floating-point dtype", found.name,
            "Draw in a floating-point dtype and quantize the result.",
        )  # fmt: skip
    narrower = {"float64": np.float32, "complex128": np.complex64, "int64": np.int32, "uint64": np.uint32}
    if wide != np.float64 and found.name in narrower:
        used = np.dtype(narrower[found.name])
        warnings.warn(
            f"`{where}(dtype={found.name!r})`: 64-bit values are off, {used.name} is used. Turn them on with "
            "jax.config.update('jax_enable_x64', True).",
            UserWarning,
            stacklevel=3,
        )
        return used
    return found


def _read_key(where: str, key: Any) -> Any:
    """One key, typed or raw."""
    way_out = "Make one with jax.random.key(0)."
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise checks.wrong_type(where, "key", "a jax.random key", key, way_out)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape != ():
            raise checks.bad(where, "key", "one key (shape ())", key.shape, "Map over keys with jax.vmap.")
    elif key.dtype != np.uint32:
        raise checks.wrong_type(where, "key", "a jax.random key", key, way_out)
    elif key.ndim != 1:
        raise checks.bad(where, "key", "one key", key.shape, "Map over keys with jax.vmap.")
    return key


def _check_range(where: str, dtype: np.dtype, law: Law | None) -> None:
    """Refuse floats that cannot hold the law: draws would overflow, or (8 bits and narrower) round to zero."""
    info = jnp.finfo(dtype)
    narrow = jnp.issubdtype(dtype, jnp.floating) and info.bits <= 8
    if narrow and float(info.min) >= 0:
        raise checks.bad(where, "dtype", "a dtype with a sign", dtype.name, "Draw in bfloat16 and quantize.")
    if law is None or not is_concrete(law.stddev, law.mean) or law.kind == "constant":
        return
    step, largest = float(info.smallest_subnormal), float(info.max)
    sd, mean = float(law.stddev), abs(float(law.mean))
    if not narrow:
        if sd + mean > largest:
            raise checks.bad(
                where, "dtype", f"able to hold entries of {sd + mean:.3g} (at most {largest:.3g})",
                dtype.name, "Take smaller ones, or a wider dtype.",
            )  # fmt: skip
        return
    if sd < step or 6 * sd + mean > largest:
        raise checks.bad(
            where, "dtype", f"able to hold a spread of {sd:.3g} ({step:.3g} to {largest / 6:.3g})",
            dtype.name, "Draw in bfloat16, or draw scaled weights and keep the scale beside them.",
        )  # fmt: skip


def _spec_axes(spec: PartitionSpec) -> set[str]:
    names: set[str] = set()
    for part in spec:
        if isinstance(part, str):
            names.add(part)
        elif isinstance(part, tuple):
            names.update(part)
    return names


def place(make: Callable[[Any], jax.Array], key: Any, where: str, out_sharding: Any) -> jax.Array:
    """`make(key)` laid out as `out_sharding` says, over Auto or Explicit mesh axes, traced or not."""
    if isinstance(out_sharding, PartitionSpec):
        mesh: Any = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            raise checks.bad(
                where, "out_sharding", "a NamedSharding when no mesh is set", out_sharding,
                "Set one with jax.set_mesh(mesh), or pass NamedSharding(mesh, spec).",
            )  # fmt: skip
        out_sharding = NamedSharding(mesh, out_sharding)
    if not isinstance(out_sharding, jax.sharding.Sharding):
        raise checks.wrong_type(
            where, "out_sharding", "None, a PartitionSpec or a NamedSharding", out_sharding
        )
    if not isinstance(out_sharding, NamedSharding):
        return jax.lax.with_sharding_constraint(make(key), out_sharding)
    mesh = out_sharding.mesh
    explicit = set(mesh.explicit_axes)
    used = _spec_axes(out_sharding.spec)
    if used & explicit and used - explicit:
        raise checks.bad(
            where, "out_sharding", "over axes of one kind, Auto or Explicit", out_sharding.spec,
            "Make the mesh with one axis type, or draw without out_sharding and reshard.",
        )  # fmt: skip
    if explicit:
        return jax.sharding.auto_axes(make, axes=mesh.explicit_axes, out_sharding=out_sharding)(key)
    return jax.lax.with_sharding_constraint(make(key), out_sharding)


class Initializer:
    """A callable record: `init(key, shape, dtype=None, out_sharding=None) -> array`.

    Conventions: kernels are `(..., in, out)`, applied as `x @ w`; `dtype=None` is JAX's default float; draws
    are made in float32 (or in the wider dtype asked for) and rounded once. Equal initializers compare and
    hash equal, print the factory call that makes them, survive pickling, and `to_config` / `from_config`.
    Numbers such as a standard deviation are pytree leaves, so an initializer can be swept under `vmap`.
    """

    any_dtype = False  # constants may also be integers
    needs_key = True

    def __call__(
        self, key: Any, shape: Sequence[int], dtype: Any = None, out_sharding: Any = None
    ) -> jax.Array:
        where = self._name()
        dims = checks.shape(where, "shape", shape)
        kind = _read_dtype(where, dtype, self.any_dtype)
        if 0 in dims:
            make: Callable[[Any], jax.Array] = lambda _: jnp.zeros(dims, kind)  # noqa: E731
        else:
            self._check_shape(dims)
            if not self.any_dtype:
                _check_range(where, kind, self.law(dims))
            make = lambda k: self._sample(k, dims, kind, 1.0)  # noqa: E731
        if self.needs_key:
            key = _read_key(where, key)
        if out_sharding is None:
            return make(key)
        if is_concrete(self, key) and isinstance(out_sharding, NamedSharding):
            return _placed(out_sharding)(self, key, dims, kind)
        return place(make, key, where, out_sharding)

    def law(self, shape: Sequence[int]) -> Law | None:
        """The law of a weight of this shape, or None where no `Law` describes it."""
        raise NotImplementedError

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        """Draw times `factor`, in `working_dtype(dtype)`, rounded once to `dtype`. No dimension is 0."""
        raise NotImplementedError

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """The shortest factory call that makes an equal record: name, positional and keyword arguments."""
        raise NotImplementedError

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError for a shape (without zeros) that this scheme has no meaning for."""

    def _with_axes(self, **changes: Any) -> Initializer:
        """The same scheme for other axes, see `_fans.axes`; for schemes that have fans."""
        raise NotImplementedError

    def _name(self) -> str:
        return self._call()[0]

    def __repr__(self) -> str:
        name, args, kwargs = self._call()
        inside = [_show(a) for a in args] + [f"{k}={_show(v)}" for k, v in kwargs.items()]
        return f"{name}({', '.join(inside)})"

    def to_config(self) -> dict[str, Any]:
        """A JSON-ready dict from which `from_config` makes an equal initializer."""
        from jaxinit.initializers._catalogue import factory

        name, args, kwargs = self._call()
        bound = inspect.signature(factory(name)).bind(*args, **kwargs)
        arguments: dict[str, Any] = {}
        for parameter, value in bound.arguments.items():
            arguments[parameter] = _encode(name, parameter, value)
        return {"name": name, **arguments}


def _at_once(init: Initializer, key: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    return jnp.zeros(shape, dtype) if 0 in shape else init._sample(key, shape, dtype, 1.0)


@functools.lru_cache(maxsize=256)
def _placed(out_sharding: NamedSharding) -> Callable[..., jax.Array]:
    """The compiled draw whose result is born on the mesh, no device holding the whole."""
    return jax.jit(_at_once, static_argnums=(0, 2, 3), out_shardings=out_sharding)


def _show(value: Any) -> str:
    if checks.is_concrete(value) and isinstance(value, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.ndim == 0 and array.dtype == np.float64:
            return repr(float(array))
        return f"np.array({array.tolist()!r}, dtype={array.dtype.name!r})"
    return repr(value)


def _encode(name: str, parameter: str, value: Any) -> Any:
    if isinstance(value, Initializer):
        return value.to_config()
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(value)
        return {"array": array.tolist(), "dtype": array.dtype.name}
    if isinstance(value, (tuple, list)):
        return [_encode(name, parameter, v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, complex):
        return {"array": [value.real, value.imag], "dtype": "complex"}
    raise checks.wrong_type(
        name, parameter, "a number, a name or an initializer of jaxinit to be saved as a config", value
    )


@dataclass_transform(frozen_default=True, field_specifiers=(static, leaf))
def initializer(cls: type[T]) -> type[T]:
    """Class decorator: a `record` whose repr is the call of its factory."""
    cls.__repr__ = Initializer.__repr__  # type: ignore[method-assign, assignment]
    return record(cls)
