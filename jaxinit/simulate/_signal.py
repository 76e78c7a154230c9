"""The nonlinearity on signals that carry their own exponent, and what it tells about itself."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.scaled import is_infinite, pow2
from jaxinit._core.struct import record, static
from jaxinit._core.sums import one_loop
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
    @functools.cache
    def of(activation: Activation) -> Nonlinearity:
        """Look at phi and phi' at a few points, in float32 as the simulation will, in one program."""
        exponents = (-FAR, -FAR + 10, FAR, FAR - 10)
        ends = [np.float32(sign * 2.0**e) for e in exponents for sign in (-1, 1)]
        points = np.concatenate([ends, np.linspace(-20.0, 20.0, 8001)]).astype(np.float32)
        with jax.ensure_compile_time_eval():
            value, slope = (
                np.asarray(v, np.float64) for v in jax.jit(activation.value_and_derivative)(points)
            )
        near, nearer, far, less = (value[: len(ends)] / np.abs(ends)).reshape((-1, 2))

        def agree(a: np.ndarray, b: np.ndarray) -> bool:
            return bool(np.all(np.isfinite(a)) and np.allclose(a, b, rtol=1e-3, atol=0.0))

        slope = np.abs(slope[len(ends) :])
        largest = float(np.max(slope[np.isfinite(slope)], initial=0.0))
        return Nonlinearity(activation, agree(near, nearer), agree(far, less), largest)

    def __call__(self, z: jax.Array, exponent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """phi and phi' of z * 2^exponent: (values, exponents of the values, derivatives).

        `z`: (inputs, n) with entries of order 1; `exponent`: (inputs,) int32.
        """
        far = FAR if z.dtype.itemsize < 8 else 8 * FAR
        lowest = -far if self.linear_at_zero else -2 * far
        highest = far if self.linear_at_infinity else 2 * far
        inside = jnp.clip(exponent, lowest, highest)
        outside = jnp.clip(inside, -far, far)
        excess = exponent - inside
        linear = jnp.where(excess < 0, self.linear_at_zero, self.linear_at_infinity)
        lost = is_infinite(exponent)
        exponent = jnp.where(lost, exponent, outside + jnp.where(linear, excess, 0))
        scale, back, exponent = one_loop(pow2(inside, z.dtype), pow2(-outside, z.dtype), exponent)
        value, slope = self.activation.value_and_derivative(z * scale[:, None])
        lost = is_infinite(exponent)[:, None]
        value, slope = one_loop(jnp.where(lost, 0, value * back[:, None]), jnp.where(lost, jnp.inf, slope))
        return value, exponent, slope
