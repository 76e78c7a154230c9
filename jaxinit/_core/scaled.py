"""Numbers with an exponent of their own, so that a product over 100,000 layers neither overflows nor
underflows: value = mantissa * 2^exponent. Rescaling by powers of two is exact: it costs no digit.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.moments import Moments
from jaxinit._core.struct import leaf, record, static
from jaxinit._core.sums import exponents, one_loop

__all__ = [
    "ChunkMoments",
    "PackedMoments",
    "Scaled",
    "is_infinite",
    "normalize",
    "pow2",
    "reduce",
    "reduce_all",
]

_LN2 = float(np.log(2.0))

#: The exponent of a row that has left the range of numbers (it is infinite, or not a number).
_INFINITE = 1 << 28


@record
class Scaled:
    """value = mantissa * 2^exponent, elementwise; `exponent` int32, of the mantissa's shape.

    With `log` the quantity spoken of is the natural logarithm of that value.
    """

    mantissa: Any
    exponent: Any
    log: bool = static(default=False)


@record
class ChunkMoments:
    """Moments over one chunk of samples as the compiled program returns them.

    The quantity is x * 2^exponent + offset ln 2, elementwise; count, mean, m2, min and max speak of x in the
    program's precision, and `host` gives the moments of the quantity in float64.
    """

    count: Any = leaf()
    mean: Any = leaf()
    m2: Any = leaf()
    min: Any = leaf()
    max: Any = leaf()
    exponent: Any = leaf()
    offset: Any = leaf()

    def host(self) -> Moments:
        mean, m2, low, high = (
            np.asarray(v, dtype=np.float64) for v in (self.mean, self.m2, self.min, self.max)
        )
        exponent, offset = np.asarray(self.exponent), np.asarray(self.offset) * _LN2
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return Moments(
                np.asarray(self.count, dtype=np.int64),
                np.ldexp(mean, exponent) + offset,
                np.ldexp(m2, 2 * exponent),
                np.ldexp(low, exponent) + offset,
                np.ldexp(high, exponent) + offset,
            )


def pow2(exponent: jax.Array, dtype: Any) -> jax.Array:
    """2^exponent, exact; 0 below the normal numbers of `dtype` and inf above them."""
    dtype = jnp.dtype(dtype)
    if dtype.itemsize < 4:
        return pow2(exponent, jnp.float32).astype(dtype)
    info = jnp.finfo(dtype)
    bits = jnp.clip(exponent.astype(f"int{info.bits}") + (info.maxexp - 1), 0, 2 * info.maxexp - 1)
    return jax.lax.bitcast_convert_type(bits << info.nmant, dtype)


def exponent_of(x: jax.Array, axis: int) -> jax.Array:
    """The power of two at or just above the largest magnitude along `axis`; 0 if that is 0 or not finite."""
    top = jnp.max(jnp.abs(x), axis=axis)
    usable = jnp.isfinite(top) & (top > 0)
    _, e = jnp.frexp(jnp.where(usable, top, jnp.ones_like(top)))
    return jnp.where(usable, e, 0).astype(jnp.int32)


def normalize(x: jax.Array, exponent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows of x * 2^exponent with their largest entry in [1/2, 1): the rows and their exponents, exact.

    `x`: (rows, n); `exponent`: (rows,). Rows that are 0 keep the exponent. A row that is not finite becomes 0
    with an exponent for which `is_infinite` holds, and stays so: it spoils no other row.
    """
    most = jnp.finfo(x.dtype).maxexp - 2  # whose powers are normal numbers
    top = exponents(x)
    lost = is_infinite(exponent) | (top == 2 * most + 3)
    shift = jnp.where(top > 0, jnp.clip(top - most, -most, most), 0)
    power, exponent, lost = one_loop(
        pow2(-shift, x.dtype), jnp.where(lost, _INFINITE, exponent + shift), lost.astype(jnp.int32)
    )
    return jnp.where(lost[..., None] > 0, 0, x * power[..., None]), exponent


def is_infinite(exponent: jax.Array) -> jax.Array:
    """Whether rows of these exponents have left the range of numbers."""
    return exponent >= _INFINITE // 2


def _moments(x: jax.Array, exponent: jax.Array, offset: jax.Array) -> ChunkMoments:
    defined = ~jnp.isnan(x)
    count = jnp.sum(defined, axis=0, keepdims=True, dtype=jnp.int32)
    zero, inf = jnp.zeros_like(x), jnp.full_like(x, jnp.inf)
    # Deviations from the first sample, so that m2 does not cancel when the mean is far from 0.
    first = x[:1]
    pivot = jnp.where(jnp.isfinite(first), first, jnp.zeros_like(first))
    shifted = jnp.where(defined, x - pivot, zero)
    mean = jnp.sum(shifted, axis=0, keepdims=True) / jnp.maximum(count, 1).astype(x.dtype)
    m2 = jnp.sum(jnp.where(defined, jnp.square(shifted - mean), zero), axis=0)
    low = jnp.min(jnp.where(defined, x, inf), axis=0)
    high = jnp.max(jnp.where(defined, x, -inf), axis=0)
    some, nan = count[0] > 0, jnp.full_like(m2, jnp.nan)
    centre, m2, low, high = (jnp.where(some, v, nan) for v in ((mean + pivot)[0], m2, low, high))
    return ChunkMoments(count[0], centre, m2, low, high, exponent, offset)


def reduce(samples: jax.Array | Scaled) -> ChunkMoments:
    """Moments over the leading axis, inside the compiled program. nan means "undefined" and is not counted."""
    if not isinstance(samples, Scaled):
        zero = jnp.zeros(samples.shape[1:], jnp.int32)
        return _moments(samples, zero, zero)
    return _moments(*_common(samples, np.asarray(samples.log)))


def _common(samples: Scaled, log: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x, exponent and offset of `ChunkMoments`, with one exponent for all samples; `log` says it of each column."""
    m, e = samples.mantissa, samples.exponent
    present = jnp.isfinite(m) & (m != 0)
    lowest = jnp.iinfo(jnp.int32).min
    top = jnp.max(jnp.where(present, e, lowest), axis=0)
    top = jnp.where(top == lowest, 0, top)
    shift = jnp.where(present, e - top[None], 0)
    x, zero = m * pow2(shift, m.dtype), jnp.zeros_like(top)
    if not log.any():
        return x, top, zero
    logs = jnp.log(m) + shift.astype(m.dtype) * jnp.asarray(_LN2, m.dtype)
    if log.all():
        return logs, zero, top
    chosen = jnp.asarray(log)
    return jnp.where(chosen[None], logs, x), jnp.where(chosen, zero, top), jnp.where(chosen, top, zero)


@record
class PackedMoments:
    """Moments of several named quantities, flattened and reduced together: one reduction to compile per kind."""

    moments: tuple[ChunkMoments, ...] = leaf()
    names: tuple[tuple[str, ...], ...] = static()
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = static()

    def host(self) -> dict[str, Moments]:
        """Moments by name, float64, in each quantity's shape."""
        out = {}
        for packed, names, shapes in zip(self.moments, self.names, self.shapes, strict=True):
            flat, start = packed.host(), 0
            for name, shape in zip(names, shapes, strict=True):
                stop = start + int(np.prod(shape))
                fields = (flat.count, flat.mean, flat.m2, flat.min, flat.max)
                out[name] = Moments(*(v[start:stop].reshape(shape) for v in fields))
                start = stop
        return out


def reduce_all(samples: dict[str, Any]) -> PackedMoments:
    """`reduce` of every quantity, whose leading axis counts the samples."""
    groups: dict[Any, dict[str, Any]] = {}
    for name, value in samples.items():  # those with exponents first; one precision each
        apart = isinstance(value, Scaled)
        groups.setdefault((value.mantissa if apart else value).dtype, {})[name] = value
    parts = [
        _reduced(dict(sorted(g.items(), key=lambda i: not isinstance(i[1], Scaled)))) for g in groups.values()
    ]
    return PackedMoments(*(tuple(p) for p in zip(*parts, strict=True)))


def _reduced(samples: dict[str, Any]) -> tuple[ChunkMoments, tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """One reduction of values of one precision, those with exponents first."""
    apart = [v for v in samples.values() if isinstance(v, Scaled)]
    plain = [v for v in samples.values() if not isinstance(v, Scaled)]

    def flat(parts: list[jax.Array]) -> jax.Array:
        return jnp.concatenate([v.reshape((v.shape[0], math.prod(v.shape[1:]))) for v in parts], axis=1)

    pieces = []
    if apart:
        joint = Scaled(flat([v.mantissa for v in apart]), flat([v.exponent for v in apart]))
        pieces.append(_common(joint, np.repeat([v.log for v in apart], [v.mantissa[0].size for v in apart])))
    if plain:
        x = flat(plain)
        zero = jnp.zeros(x.shape[1:], jnp.int32)
        pieces.append((x, zero, zero))
    x, exponent, offset = (jnp.concatenate(p, axis=-1) for p in zip(*pieces, strict=True))
    shapes = tuple((v.mantissa if isinstance(v, Scaled) else v).shape[1:] for v in samples.values())
    return _moments(x, exponent, offset), tuple(samples), shapes
