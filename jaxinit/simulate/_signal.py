"""The nonlinearity on signals that carry their own exponent, and what it tells about itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.scaled import is_infinite, pow2
from jaxinit._core.struct import record, static
from jaxinit.activations import Activation

#: Beyond 2^+-FAR a nonlinearity that is linear there is evaluated at 2^+-FAR and scaled back, exactly enough
#: (relative error of order 2^-FAR) and within the range of float32; float64 has eight times as much room.
FAR = 60


@record
class Nonlinearity:
    """phi with its asymptotics: whether phi(s x) = s phi(x) as s -> 0 and as s -> infinity."""

    activation: Activation = static()
    linear_at_zero: bool = static()
    linear_at_infinity: bool = static()
    largest_slope: float = static()

    @staticmethod
    def of(activation: Activation) -> Nonlinearity:
        """Look at phi and phi' at a few points, in float32 as the simulation will."""
        with jax.ensure_compile_time_eval():
            signs = jnp.asarray([-1.0, 1.0], jnp.float32)

            def slopes(exponent: int) -> np.ndarray:
                s = np.float32(2.0) ** exponent
                return np.asarray(activation(signs * s), np.float64) / float(s)

            def agree(a: np.ndarray, b: np.ndarray) -> bool:
                return bool(np.all(np.isfinite(a)) and np.allclose(a, b, rtol=1e-3, atol=0.0))

            grid = jnp.asarray(np.linspace(-20.0, 20.0, 8001), jnp.float32)
            slope = np.abs(np.asarray(activation.derivative(grid), np.float64))
            return Nonlinearity(
                activation,
                agree(slopes(-FAR), slopes(-FAR + 10)),
                agree(slopes(FAR), slopes(FAR - 10)),
                float(np.max(slope[np.isfinite(slope)], initial=0.0)),
            )

    def __call__(self, z: jax.Array, exponent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """phi and phi' of z * 2^exponent: (values, exponents of the values, derivatives).

        `z`: (inputs, n) with entries of order 1; `exponent`: (inputs,) int32.
        """
        far = FAR if z.dtype.itemsize < 8 else 8 * FAR
        lowest = -far if self.linear_at_zero else -2 * far
        highest = far if self.linear_at_infinity else 2 * far
        inside = jnp.clip(exponent, lowest, highest)
        outside = jnp.clip(inside, -far, far)
        value, slope = self.activation.value_and_derivative(z * pow2(inside, z.dtype)[:, None])
        excess = exponent - inside
        linear = jnp.where(excess < 0, self.linear_at_zero, self.linear_at_infinity)
        lost = is_infinite(exponent)
        value = jnp.where(lost[:, None], 0, value * pow2(-outside, z.dtype)[:, None])
        slope = jnp.where(lost[:, None], jnp.inf, slope)
        return value, jnp.where(lost, exponent, outside + jnp.where(linear, excess, 0)), slope
