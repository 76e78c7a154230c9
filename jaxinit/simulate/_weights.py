"""One layer's weights, either never formed (implicit) or drawn (materialized), behind one interface."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.normals import normals
from jaxinit._core.struct import leaf, record, static
from jaxinit.implicit import _frames, _gaussian, _gradient, _haar
from jaxinit.initializers._orthogonal import haar
from jaxinit.network import Network
from jaxinit.simulate._precision import FULL, Precision

#: Laws that `implicit` draws exactly.
IMPLICIT_LAWS = ("gaussian", "orthogonal")


def law_of(network: Network, shape: tuple[int, int], kernel: tuple[int, ...] = ()) -> str:
    """The law of the weights of a layer: "gaussian", "orthogonal", "iid" or "unknown"."""
    if network.initializer is None:
        return network.ensemble
    law = _law(network, shape, kernel)
    return "unknown" if law is None else str(law.kind)


def _scale_of(network: Network, shape: tuple[int, int], kernel: tuple[int, ...]) -> jax.Array:
    """The standard deviation of entries of known law, or the scale of an "orthogonal" matrix; float32."""
    if network.initializer is None:
        variance = network.weight_variance / shape[0]
        if network.ensemble == "orthogonal":
            variance = variance * max(shape)
        return jnp.sqrt(jnp.asarray(variance, jnp.float32))
    return jnp.asarray(_law(network, shape, kernel).stddev, jnp.float32)


def _law(network: Network, shape: tuple[int, int], kernel: tuple[int, ...]) -> Any:
    return getattr(network.initializer, "law", lambda shape: None)(_tensor(shape, kernel))


def _tensor(shape: tuple[int, int], kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an initializer is asked for."""
    return (*kernel, shape[0] // math.prod(kernel), shape[1])


def _rows(x: jax.Array) -> Any:
    """Few rows as arrays of their own: a loop that reads two slices of a part of a larger array is not vectorized."""
    return tuple(x) if len(x) <= _frames.UNROLLED else x


@record
class LayerKeys:
    """The keys of one layer (or, stacked, of all), by purpose."""

    forward: Any = leaf()
    backward: Any = leaf()
    bias: Any = leaf()
    norm: Any = leaf()

    @staticmethod
    def of(each: jax.Array, tied: bool = False) -> LayerKeys:
        """From keys (layers, 4); one bias for all layers that are `tied`."""
        bias = jnp.broadcast_to(each[:1, 2], each[:, 2].shape) if tied else each[:, 2]
        return LayerKeys(each[:, 0], each[:, 1], bias, each[:, 3])


@record
class Weights:
    """How the products with one layer's matrix W (n_in, n_out) are drawn.

    `sampler`: "implicit" or "materialized"; `law`: what `law_of` says; `store`: keep a materialized W, or the
    normals of an implicit Gaussian one, for the backward pass (else they are drawn again); `kernel`: widths of the
    convolution kernel whose taps and input channels are the rows of W; `precision`: what W is rounded to, if it is
    drawn. (Entries rounded from normal ones are iid, and normal but for 2^-17 of their variance: products with them
    are drawn as those with normal ones.)
    """

    sampler: str = static()
    law: str = static()
    shape: tuple[int, int] = static()
    store: bool = static(default=True)
    kernel: tuple[int, ...] = static(default=())
    precision: Precision = static(default=FULL)

    @property
    def units(self) -> int:
        """Entries of a row of x @ W."""
        return self.shape[1]

    def spread(self, bias: jax.Array) -> jax.Array:
        """What is added to a row of x @ W, from a number for every column of W."""
        return bias

    def seen(self, x: jax.Array) -> jax.Array:
        """What `squared_gradient` needs of the input."""
        return self._gram(x)

    def squared_gradient(self, seen: jax.Array, d: jax.Array, weight: jax.Array) -> jax.Array:
        """||sum_a weight_a x_a d_a^T||_F^2 = sum_ab <x_a, x_b> <d_a, d_b> weight_a weight_b."""
        return _gradient.from_grams(seen, self._gram(d) * (weight[:, None] * weight[None, :]))

    def _gram(self, x: jax.Array) -> jax.Array:
        """Inner products of rows that a product is drawn for: its frame knows them, and is computed once."""
        if self.sampler == "implicit" and self.law == "gaussian" and x.shape[0] <= _frames.UNROLLED:
            _, r = _frames.orthonormalize(x)
            return _frames.combine(r, r.T)
        return _frames.gram(x, x)

    def start(self, keys: LayerKeys, rows: int, network: Network) -> None:
        """What a layer hands to the next about its matrix: nothing, each has its own."""
        return None

    def forward(
        self, keys: LayerKeys, state: None, x: jax.Array, network: Network
    ) -> tuple[jax.Array, Any, None]:
        """x @ W, what the other products need (`kept` says how much of it to store), and the state."""
        n_out = self.shape[1]
        if self.sampler == "materialized":
            w = self.draw(keys.forward, network)
            return jnp.matmul(x, w, precision=jax.lax.Precision.HIGHEST), w, state
        scale = self.scale(network)
        module = _haar if self.law == "orthogonal" else _gaussian
        return *module.forward(keys.forward, x, n_out, scale), state

    def kept(self, residual: Any) -> Any:
        """The part of the residual that is stored for the backward pass."""
        if self.sampler == "implicit" and self.law == "gaussian":
            q, g = residual
            return _rows(q), _rows(g) if self.store else None
        return residual if self.store else None

    def backward(
        self, keys: LayerKeys, state: None, residual: Any, d: jax.Array, network: Network, norm: bool = False
    ) -> tuple[jax.Array, None, jax.Array | None]:
        """d @ W.T, with the keys given to `forward`, the state, and with `norm` ||W||_F^2, given both products."""
        if self.sampler == "materialized":
            w = residual if self.store else self.draw(keys.forward, network)
            y = jnp.matmul(d, w.T, precision=jax.lax.Precision.HIGHEST)
            return y, state, jnp.sum(jnp.square(w)) if norm else None
        scale = self.scale(network)
        if self.law == "orthogonal":
            y = _haar.backward(keys.backward, residual, d, self.shape[0], scale)
            return y, state, jnp.asarray(_haar.squared_norm(*self.shape, scale)) if norm else None
        if not self.store:
            residual = (residual[0], _gaussian.draw(keys.forward, residual[0], self.shape[1]))
        y, seen = _gaussian.backward_and_seen(keys.backward, residual, d, scale)
        size = math.prod(self.shape)
        return y, state, _gaussian.squared_norm(keys.norm, seen, size, scale) if norm else None

    def draw(self, key: jax.Array, network: Network) -> jax.Array:
        """W itself, a float32 matrix rounded to what is computed in."""
        return self.precision.entries(self._draw(key, network).astype(self.precision.held))

    def _draw(self, key: jax.Array, network: Network) -> jax.Array:
        n_in, n_out = self.shape
        if network.initializer is not None:
            shape = _tensor(self.shape, self.kernel)
            drawn = jnp.asarray(network.initializer(key, shape, jnp.float32))
            if drawn.shape != shape:
                raise checks.bad(
                    "Network", "initializer", f"a function whose array has the shape it is asked for, {shape}",
                    drawn.shape,
                )  # fmt: skip
            return drawn.reshape(self.shape)
        scale = _scale_of(network, self.shape, self.kernel)
        if self.law == "orthogonal":
            m = max(n_in, n_out)
            return scale * haar(key, m, m, (), np.dtype(np.float32))[:n_in, :n_out]
        return scale * normals(key, n_in, n_out)

    def scale(self, network: Network) -> jax.Array:
        """Standard deviation of the entries, or scale of an orthogonal W."""
        return jnp.asarray(_scale_of(network, self.shape, self.kernel), self.precision.held)

    def numbers(self, inputs: int) -> int:
        """Numbers of the layer's largest array of rows, per seed."""
        return inputs * max(self.shape)

    def bytes_kept(self, inputs: int) -> int:
        """Bytes that a layer keeps for the backward pass, per seed."""
        return 4 * inputs * self.shape[0] + self.bytes_of_products(inputs)

    def bytes_of_products(self, rows: int) -> int:
        """Bytes of the residual of `forward`, for so many rows."""
        n_in, n_out = self.shape
        if self.sampler == "materialized":
            return 4 * n_in * n_out if self.store else 0
        rank = _frames.rank_bound(rows, n_in)
        wide = max(n_in, n_out)
        return 4 * rank * (2 * wide if self.law == "orthogonal" else n_in + n_out * self.store)
