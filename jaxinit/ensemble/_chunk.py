"""What one chunk yields: moments, and samples if they are kept; on the device, on the host, and as bytes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import scaled
from jaxinit._core.moments import Moments

_FIELDS = tuple(f.name for f in dataclasses.fields(Moments))


@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """Moments by name over the seeds of a chunk (or of several), and the samples by name, seeds first."""

    moments: dict[str, Moments]
    samples: dict[str, tuple[np.ndarray, ...]] | None

    def merge(self, other: Chunk) -> Chunk:
        """Both sets of seeds together, those of `other` after these."""
        moments = {name: m.merge(other.moments[name]) for name, m in self.moments.items()}
        if self.samples is None or other.samples is None:
            return Chunk(moments, None)
        return Chunk(moments, {name: v + other.samples[name] for name, v in self.samples.items()})

    def stacked(self) -> dict[str, np.ndarray] | None:
        """The samples of all seeds by name."""
        if self.samples is None:
            return None
        return {name: np.concatenate(parts) for name, parts in self.samples.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The chunk as a few named arrays; `from_arrays` makes it again."""
        every = self.moments.values()
        header = {"names": list(self.moments), "shapes": [m.mean.shape for m in every]}
        out = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
        out |= {field: np.concatenate([getattr(m, field).ravel() for m in every]) for field in _FIELDS}
        samples = self.stacked()
        if samples is not None:
            out |= {f"samples{i}": samples[name] for i, name in enumerate(self.moments)}
        return out

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Chunk:
        """Raises KeyError or ValueError for arrays that are no chunk."""
        header = json.loads(arrays["header"].tobytes().decode())
        moments, start = {}, 0
        for name, shape in zip(header["names"], header["shapes"], strict=True):
            stop = start + math.prod(shape)
            moments[name] = Moments(*(arrays[field][start:stop].reshape(shape) for field in _FIELDS))
            start = stop
        if "samples0" not in arrays:
            return Chunk(moments, None)
        return Chunk(moments, {name: (arrays[f"samples{i}"],) for i, name in enumerate(moments)})

    @staticmethod
    def from_device(
        figures: scaled.PackedMoments, samples: dict[str, Any] | None, place: int, count: int
    ) -> Chunk:
        """The chunk of one device, from outputs whose leading axis counts devices; `count` seeds are its own."""
        moments = jax.tree.map(lambda v: v[place], figures).host()
        if samples is None:
            return Chunk(moments, None)
        own = jax.tree.map(lambda v: v[place, :count], samples)
        return Chunk(moments, {name: (_to_host(value),) for name, value in own.items()})


def counted(samples: dict[str, Any], count: jax.Array) -> dict[str, Any]:
    """The samples with nan, which moments do not count, in place of all but the first `count`."""

    def mask(value: Any) -> Any:
        if isinstance(value, scaled.Scaled):
            return dataclasses.replace(value, mantissa=mask(value.mantissa))
        value = value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.float32)
        first = jnp.arange(value.shape[0], dtype=count.dtype) < count
        return jnp.where(first.reshape((-1,) + (1,) * (value.ndim - 1)), value, jnp.full_like(value, jnp.nan))

    return {name: mask(value) for name, value in samples.items()}


def _to_host(value: Any) -> np.ndarray:
    if isinstance(value, scaled.Scaled):
        mantissa, exponent = np.asarray(value.mantissa, np.float64), np.asarray(value.exponent)
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            if value.log:
                return np.log(mantissa) + exponent * np.log(2.0)
            return np.ldexp(mantissa, exponent)
    array = np.asarray(value)
    return (
        array.astype(np.float32) if array.dtype.kind == "V" else array
    )  # bfloat16 and kin: no type of NumPy's
