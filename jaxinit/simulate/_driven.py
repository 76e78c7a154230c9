"""What a recurrent network reads: U x_t of every step t, one matrix U, drawn before the steps are taken.

No gradient is asked of U, so that all its products are those of one forward pass.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxinit._core.scaled import normalize
from jaxinit._core.struct import record, static
from jaxinit.implicit import _gaussian
from jaxinit.network import Network
from jaxinit.simulate._inputs import Inputs
from jaxinit.simulate._precision import FULL, Precision


@record
class Driven:
    """How the products with the input matrix U (n_in, n_out) are drawn: "implicit" or "materialized"."""

    sampler: str = static()
    shape: tuple[int, int] = static()
    steps: int = static()
    precision: Precision = static(default=FULL)

    @staticmethod
    def of(network: Network, sampler: str, rows: int, precision: Precision) -> Driven | None:
        """None for a network that reads nothing; `rows`: inputs at each step."""
        if not network.driven:
            return None
        width = network.shapes[0][0]
        shape = (network.input_width or width, width)
        if sampler == "auto":
            sampler = "implicit" if 4 * rows * network.depth <= min(shape) else "materialized"
        return Driven(sampler, shape, network.depth, precision)

    def __call__(self, key: jax.Array, x: jax.Array, network: Network) -> tuple[jax.Array, jax.Array]:
        """x_t @ U and exponents, (steps, inputs, n_out) and (steps, inputs), from x (steps, inputs, n_in)."""
        n_in, n_out = self.shape
        rows = self.precision.entries(x).reshape((-1, n_in))
        stddev = jnp.sqrt(jnp.asarray(network.input_weight_variance, x.dtype) / n_in)
        if self.sampler == "implicit":
            y, _ = _gaussian.forward(key, rows, n_out, stddev)
        else:
            u = jax.random.normal(key, self.shape, jnp.float32).astype(x.dtype)
            u = self.precision.entries(stddev * u)
            y = jnp.matmul(rows, u, precision=jax.lax.Precision.HIGHEST)
        y, exponent = normalize(y, jnp.zeros(len(y), jnp.int32))
        y, exponent = self.precision.rows(y, exponent)
        return y.reshape((*x.shape[:2], n_out)), exponent.reshape(x.shape[:2])

    def inputs(self, key: jax.Array, inputs: Inputs) -> jax.Array:
        """(steps, inputs, n_in): the given ones, or others of the same lengths and angle at every step."""
        if inputs.given is not None:
            return inputs.draw(key)
        return jax.vmap(inputs.draw)(jax.random.split(key, self.steps))
