"""One matrix for every layer: what is known of it goes forward from layer to layer, and back."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.scaled import Scaled, is_infinite, pow2
from jaxinit._core.struct import record, static
from jaxinit.implicit import _gaussian, _gradient, _haar
from jaxinit.implicit._known import GaussianKnown, HaarKnown
from jaxinit.network import Network
from jaxinit.simulate._weights import LayerKeys, Weights

#: Rows of every layer, (layers, inputs, n), and their exponents.
Rows = tuple[jax.Array, jax.Array]


@record
class Tied:
    """`Weights` whose matrix serves `layers` layers. Its state is all that has been seen of it, or itself.

    `whole`: also measure the matrix and its gradient, the sum over all layers, which are known at the end only.
    """

    weights: Weights = static()
    layers: int = static()
    whole: bool = static(default=False)

    @property
    def sampler(self) -> str:
        """ "implicit" or "materialized"."""
        return self.weights.sampler

    @property
    def law(self) -> str:
        """What the one matrix is drawn from."""
        return f"{self.weights.law}, tied"

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return self.weights.shape

    @property
    def units(self) -> int:
        """Entries of a row of x @ W."""
        return self.weights.units

    def spread(self, bias: jax.Array) -> jax.Array:
        """What is added to a row of x @ W, from a number for every column of W."""
        return bias

    def seen(self, x: jax.Array) -> jax.Array:
        """What `squared_gradient` needs of the input, or the input."""
        return x if self.whole else self.weights.seen(x)

    def squared_gradient(self, seen: jax.Array, d: jax.Array, weight: jax.Array) -> jax.Array:
        """||sum_a weight_a x_a d_a^T||_F^2: the part of one layer in the gradient of the matrix."""
        if self.whole:
            return _gradient.squared(seen, d * weight[:, None])
        return self.weights.squared_gradient(seen, d, weight)

    def start(self, keys: LayerKeys, rows: int, network: Network) -> Any:
        """The matrix, from the first layer's key, or no knowledge of it and room for all products."""
        if self.sampler == "materialized":
            return self.weights.draw(keys.forward[0], network)
        law = HaarKnown if self.weights.law == "orthogonal" else GaussianKnown
        return law.empty(self.shape, rows * self.layers, self.weights.precision.held)

    def forward(self, keys: LayerKeys, state: Any, x: jax.Array, network: Network) -> tuple[Any, None, Any]:
        """x @ W, nothing to keep a layer, and what is known then."""
        if self.sampler == "materialized":
            return jnp.matmul(x, state, precision=jax.lax.Precision.HIGHEST), None, state
        y, state = state.product(keys.forward, x, self.weights.scale(network))
        return y, None, state

    def kept(self, residual: None) -> None:
        """Nothing."""
        return residual

    def backward(
        self, keys: LayerKeys, state: Any, residual: None, d: jax.Array, network: Network, norm: bool = False
    ) -> tuple[jax.Array, Any, None]:
        """d @ W.T, what is known then, and no norm yet: `measure` has it."""
        if self.sampler == "materialized":
            return jnp.matmul(d, state.T, precision=jax.lax.Precision.HIGHEST), state, None
        y, known = state.transposed.product(keys.backward, d, self.weights.scale(network))
        return y, known.transposed, None

    def measure(
        self, keys: LayerKeys, state: Any, h: Rows, d: Rows, factor: jax.Array, network: Network
    ) -> dict[str, jax.Array | Scaled]:
        """Of the one matrix, given all that was seen of it: its norm, that of dL/dW, and their ratio.

        `h`, `d`: inputs of the matrix and dL/dz of every layer, (layers, inputs, n) with exponents (layers, inputs);
        dL/dW = sum_t factor_t h_t^T d_t.
        """
        norm = jnp.sqrt(self._squared_norm(keys, state, network))
        each = (h[1] + d[1]).ravel()
        top = jnp.max(each)
        down = pow2(each - top, d[0].dtype)[:, None]
        rows = [v.reshape((-1, v.shape[-1])) for v in (h[0], d[0] * factor[:, None, None])]
        size = jnp.sqrt(_gradient.squared(rows[0], rows[1] * down))
        lost = jnp.any(is_infinite(h[1]) | is_infinite(d[1]))
        exponent = jnp.where(lost, 0, top)
        size = jnp.where(lost, jnp.inf, size)
        return {
            "norm": norm[None],
            "gradient_norm": Scaled(size[None], exponent[None]),
            "gradient_ratio": Scaled((size / norm)[None], exponent[None]),
        }

    def _squared_norm(self, keys: LayerKeys, state: Any, network: Network) -> jax.Array:
        if self.sampler == "materialized":
            return jnp.sum(jnp.square(state))
        scale = self.weights.scale(network)
        if self.weights.law == "orthogonal":
            return jnp.asarray(_haar.squared_norm(*self.shape, scale))
        seen = state.squares(jnp.where(scale > 0, scale, 1))
        return _gaussian.squared_norm(keys.norm[0], seen, math.prod(self.shape), scale)

    def numbers(self, inputs: int) -> int:
        """Numbers of the largest array of rows, per seed: the rows of all layers."""
        return self.weights.numbers(inputs * self.layers)

    def bytes_kept(self, inputs: int) -> int:
        """Bytes that a layer keeps for the backward pass, per seed, with its share of the state."""
        wide = max(self.shape)
        state = 16 * wide * inputs * self.layers if self.sampler == "implicit" else 4 * wide * wide
        return 8 * inputs * wide + 2 * state // self.layers
