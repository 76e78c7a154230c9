"""From a layer's pre-activations to its activations and back: normalization, nonlinearity, dropout, unit by unit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.scaled import is_infinite, pow2
from jaxinit._core.struct import leaf, record, static
from jaxinit.simulate._precision import FULL, Precision
from jaxinit.simulate._signal import Nonlinearity


@record
class Local:
    """What the backward pass keeps of h = m phi(norm(z)) / (1 - dropout)."""

    slope: Any = leaf()
    unit: Any = leaf(default=None)
    length: Any = leaf(default=None)
    exponent: Any = leaf(default=None)
    centred: bool = static(default=False)

    def pull(self, gradient: jax.Array, exponent: jax.Array) -> tuple[jax.Array, jax.Array]:
        """dL/dz and its exponents from dL/dh * 2^exponent."""
        d = gradient * self.slope
        if self.unit is None:
            return d, exponent
        if self.centred:
            d = d - jnp.mean(d, axis=1, keepdims=True)
        d = d - self.unit * jnp.mean(self.unit * d, axis=1, keepdims=True)
        return d / self.length[:, None], exponent - self.exponent

    def times(self, factor: jax.Array) -> Local:
        """The same for factor * h."""
        return Local(self.slope * factor, self.unit, self.length, self.exponent, self.centred)


@record
class Activate:
    """z -> h, with what to keep. All static."""

    nonlinearity: Nonlinearity = static()
    norm: str | None = static(default=None)
    drops: bool = static(default=False)
    precision: Precision = static(default=FULL)

    def start(self, h: jax.Array) -> Local:
        """For the input, which is no activation: it counts as derivative 1 at layer 0."""
        if self.norm is None:
            return Local(jnp.ones_like(h))
        rows = h.shape[0]
        return Local(
            jnp.ones_like(h), jnp.zeros_like(h), jnp.ones(rows, h.dtype), jnp.zeros(rows, jnp.int32),
            self.norm == "layer",
        )  # fmt: skip

    def __call__(
        self, key: jax.Array, z: jax.Array, exponent: jax.Array, dropout: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, Local]:
        """h, its exponents, phi and phi' before dropout, and the Local of z * 2^exponent."""
        kept: dict[str, Any] = {}
        if self.norm is not None:
            if self.norm == "layer":
                z = z - jnp.mean(z, axis=1, keepdims=True)
            length = jnp.sqrt(jnp.mean(jnp.square(z), axis=1))
            length = jnp.where(length > 0, length, 1)
            z = z / length[:, None]
            kept = {"unit": z, "length": length, "exponent": exponent, "centred": self.norm == "layer"}
            exponent = jnp.where(is_infinite(exponent), exponent, 0)
            z, exponent = self.precision.rows(z, exponent)
        if self.precision.short:
            f = self.nonlinearity.activation.value_and_derivative
            phi, exponent, slope = self.precision.operations(f, z, exponent)
        else:
            phi, exponent, slope = self.nonlinearity(z, exponent)
            phi, exponent = self.precision.rows(phi, exponent)
        h, after, through = phi, exponent, slope
        if self.drops:
            keep = 1 - jnp.asarray(dropout, jnp.float32)
            mask = jax.random.bernoulli(key, keep, z.shape).astype(z.dtype) / keep.astype(z.dtype)
            h, after = self.precision.rows(phi * mask, exponent)
            through = slope * mask
        return h, after, phi, slope, Local(through, **kept)


def add(x: jax.Array, ex: jax.Array, y: jax.Array, ey: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x * 2^ex + y * 2^ey, rows at the larger of their two scales, so that neither overflows.

    Rows of x and y have entries of order 1, or are 0: a zero row has no scale.
    """
    lowest = jnp.iinfo(jnp.int32).min // 2
    scale_x = jnp.where(jnp.any(x != 0, axis=1), ex, lowest)
    scale_y = jnp.where(jnp.any(y != 0, axis=1), ey, lowest)
    top = jnp.maximum(scale_x, scale_y)
    top = jnp.where(top == lowest, ex, top)
    top = jnp.where(is_infinite(ex) | is_infinite(ey), jnp.maximum(ex, ey), top)
    down_x, down_y = (pow2(jnp.minimum(e - top, 0), x.dtype)[:, None] for e in (ex, ey))
    return x * down_x + y * down_y, top
