"""Sparse kernels: an exact number of connections for every unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import leaf, static
from jaxinit.initializers import _draw
from jaxinit.initializers._base import Initializer, Law, initializer, times, working_dtype

__all__ = ["sparse"]


@initializer
class Sparse(Initializer):
    """Normal entries, of which each unit keeps an exact number."""

    stddev: Any = leaf()
    sparsity: float | None = static(default=None)
    connections: int | None = static(default=15)
    per: str = static(default="output")

    def law(self, shape: Sequence[int]) -> Law | None:
        return None

    def _kept(self, size: int) -> int:
        """Non-zero entries of a unit with `size` possible connections."""
        if self.sparsity is not None:
            return size - math.ceil(self.sparsity * size)
        assert self.connections is not None
        return min(self.connections, size)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) < 2:
            raise checks.bad(
                "sparse", "shape", "at least 2-D", shape, "Biases take zeros() or constant(...)."
            )

    def _sample(self, key: Any, shape: tuple[int, ...], dtype: np.dtype, factor: Any) -> jax.Array:
        work = working_dtype(dtype)
        key_values, key_places = jax.random.split(key)
        columns = shape[-1]
        rows = math.prod(shape) // columns
        x = jax.random.normal(key_values, (rows, columns), work)
        axis = 0 if self.per == "output" else 1
        size = (rows, columns)[axis]
        kept = jnp.arange(size) < self._kept(size)
        kept = jnp.broadcast_to(kept[:, None] if axis == 0 else kept[None, :], (rows, columns))
        kept = jax.random.permutation(key_places, kept, axis=axis, independent=True)
        scale = _draw.product(_draw.as_scalar(self.stddev, work), factor)
        return jnp.where(kept, times(x, scale), jnp.zeros((), work)).astype(dtype).reshape(shape)

    def _call(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        kwargs: dict[str, Any] = {} if self.per == "output" else {"per": self.per}
        if self.sparsity is not None:
            kwargs["sparsity"] = self.sparsity
        elif self.connections != 15:
            kwargs["connections"] = self.connections
        args = () if isinstance(self.stddev, float) and self.stddev == 1.0 else (self.stddev,)
        return "sparse", args, kwargs


def sparse(
    stddev: Any = 1.0, *, connections: int | None = None, sparsity: float | None = None, per: str = "output"
) -> Initializer:
    """Normal weights of which every unit keeps exactly `connections`, the others are 0.

    Args:
        stddev: standard deviation of the weights that are kept.
        connections: non-zero weights of each unit, 15 unless `sparsity` is given; no more than there are.
        sparsity: in place of it, the fraction of zeros, in [0, 1): ceil(sparsity * size) of each unit's weights.
        per: "output": each output unit keeps that many inputs (Martens). "input": each input feeds that many
            outputs, which is PyTorch's `sparse_`.

    Axes before the last count as inputs.

    Raises:
        ValueError, TypeError: for numbers out of range, or both `connections` and `sparsity`.

    Source: Martens 2010, "Deep learning via Hessian-free optimization".

    Example:
        >>> import jax
        >>> from jaxinit.initializers import sparse
        >>> (sparse(connections=3)(jax.random.key(0), (100, 4)) != 0).sum(axis=0)
        Array([3, 3, 3, 3], dtype=int32)
    """
    s = checks.number("sparse", "stddev", stddev, at_least=0,
                      way_out="The factory comes first: sparse()(key, shape).")  # fmt: skip
    checks.choice("sparse", "per", per, ("output", "input"))
    if sparsity is not None:
        if connections is not None:
            raise checks.bad("sparse", "connections", "left out when sparsity is given", connections)
        return Sparse(s, float(checks.number("sparse", "sparsity", sparsity, at_least=0, below=1)), None, per)
    n = 15 if connections is None else checks.integer("sparse", "connections", connections, at_least=1)
    return Sparse(s, None, n, per)
