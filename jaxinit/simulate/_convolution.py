"""A convolution layer: one matrix, applied to what each place sees.

The patches of an input at all places are rows (inputs x places, taps x channels) of one matrix product, W the kernel
(taps x n_in, n_out). So a kernel of iid normal entries need not be formed where these rows are few beside the fan-in,
and neither does a delta-orthogonal one, which is a Haar matrix on the channels of the place itself.

Signals are rows (inputs, places x channels), channels last.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.struct import record, static
from jaxinit.implicit import _gradient
from jaxinit.network import Network, Spatial
from jaxinit.simulate._weights import LayerKeys, Weights


@record
class Convolution:
    """How the products with one layer's kernel are drawn, as `Weights`, of which it has one for the patches."""

    weights: Weights = static()
    spatial: Spatial = static()

    @property
    def sampler(self) -> str:
        """ "implicit" or "materialized"."""
        return self.weights.sampler

    @property
    def law(self) -> str:
        """What the kernel is drawn from."""
        return "delta-orthogonal" if self.weights.law == "orthogonal" else self.weights.law

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return self.weights.shape

    @property
    def units(self) -> int:
        """Channels at all places."""
        return self.spatial.places * self.shape[1]

    def spread(self, bias: jax.Array) -> jax.Array:
        """A bias of every channel, at all places."""
        return jnp.tile(bias, self.spatial.places)

    def seen(self, x: jax.Array) -> jax.Array:
        """What `squared_gradient` needs of the input: inner products of patches would be many."""
        return x

    def squared_gradient(self, seen: jax.Array, d: jax.Array, weight: jax.Array) -> jax.Array:
        """||dL/dkernel||_F^2 of all taps, those included that are zero by law."""
        patches = _patches(seen, self.spatial, self.spatial.kernel)
        return _gradient.squared(patches, self._rows(d * weight[:, None]))

    def start(self, keys: LayerKeys, rows: int, network: Network) -> None:
        """Nothing: each layer has its own kernel."""
        return None

    def forward(
        self, keys: LayerKeys, state: None, x: jax.Array, network: Network
    ) -> tuple[jax.Array, Any, None]:
        """The convolution of x, what the other products need, and the state."""
        y, residual, state = self.weights.forward(keys, state, self._patches(x), network)
        return y.reshape((x.shape[0], self.units)), residual, state

    def kept(self, residual: Any) -> Any:
        """The part of the residual that is stored for the backward pass."""
        return self.weights.kept(residual)

    def backward(
        self, keys: LayerKeys, state: None, residual: Any, d: jax.Array, network: Network, norm: bool = False
    ) -> tuple[jax.Array, None, jax.Array | None]:
        """The transposed convolution of d, with the keys given to `forward`, the state, and with `norm` ||W||_F^2."""
        patches, state, size = self.weights.backward(keys, state, residual, self._rows(d), network, norm)
        channels = self.shape[0] // len(_offsets(self._kernel))
        before = jax.ShapeDtypeStruct((d.shape[0], self.spatial.places * channels), d.dtype)
        (out,) = jax.linear_transpose(self._patches, before)(patches)
        return jnp.asarray(out), state, size

    def numbers(self, inputs: int) -> int:
        """Numbers of the layer's largest array of rows, per seed: its patches."""
        return self.weights.numbers(inputs * self.spatial.places)

    def bytes_kept(self, inputs: int) -> int:
        """Bytes that a layer keeps for the backward pass, per seed: its input, and phi' there."""
        rows = inputs * self.spatial.places
        channels = self.shape[0] // len(_offsets(self._kernel))
        return 8 * rows * channels + self.weights.bytes_of_products(rows)

    @property
    def _kernel(self) -> tuple[int, ...]:
        """Widths of the taps that the product reads: a delta-orthogonal kernel's only one."""
        whole = self.spatial.kernel
        return whole if self.weights.kernel == whole else (1,) * len(whole)

    def _patches(self, x: jax.Array) -> jax.Array:
        return _patches(x, self.spatial, self._kernel)

    def _rows(self, d: jax.Array) -> jax.Array:
        """(inputs, places x channels) to (inputs x places, channels)."""
        return d.reshape((d.shape[0] * self.spatial.places, self.shape[1]))


def _offsets(kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Where taps lie in an array with a border of half a kernel, in the order of the kernel's entries."""
    return list(itertools.product(*(range(k) for k in kernel)))


def _patches(x: jax.Array, spatial: Spatial, kernel: tuple[int, ...]) -> jax.Array:
    """What each place sees through a kernel: `x` (inputs, places x channels) to (inputs x places, taps x channels)."""
    inputs, rows = x.shape[0], x.shape[0] * spatial.places
    x = x.reshape((inputs, *spatial.shape, x.shape[1] // spatial.places))
    border = [(0, 0), *((k // 2, k // 2) for k in kernel), (0, 0)]
    x = jnp.pad(x, border, mode="wrap") if spatial.padding == "circular" else jnp.pad(x, border)
    taps = []
    for at in _offsets(kernel):
        window = (slice(None), *(slice(i, i + n) for i, n in zip(at, spatial.shape, strict=True)))
        taps.append(x[window])
    return jnp.concatenate(taps, axis=-1).reshape((rows, -1))
