"""The inputs of a simulation: two random ones of stated length and angle, or given ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.normals import normals
from jaxinit._core.struct import leaf, record, static
from jaxinit.implicit import _frames


@record
class Inputs:
    """x = mix @ frame * sqrt(n), with a random orthonormal frame per seed; or `given` x for every seed."""

    mix: Any = leaf()
    given: Any = leaf()
    shape: tuple[int, int] = static()

    def draw(self, key: jax.Array) -> jax.Array:
        """(inputs, n)."""
        if self.given is not None:
            return jnp.asarray(self.given)
        frame, _ = _frames.orthonormalize(normals(key, *self.shape, self.mix.dtype))
        root = jnp.sqrt(jnp.asarray(self.shape[1], self.mix.dtype))
        return _frames.combine(jnp.asarray(self.mix) * root, frame)
