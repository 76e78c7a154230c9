"""Per parameter: its norm, its gradient's, and the norm of an optimizer's first update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.probe._rows import wide

__all__ = ["parameter_rows", "updates_of"]


def parameter_rows(
    parameters: Sequence[Any],
    gradients: Sequence[Any] | None,
    updates: Sequence[Any] | None,
    stacks: Sequence[int],
) -> dict[str, Any]:
    """Statistics by name, each a vector: one entry a parameter, or one a layer where its first `stacks[i]` axes
    are layers."""
    out = {"norm": _norms(parameters, stacks)}
    size = jnp.where(out["norm"] > 0, out["norm"], jnp.nan)
    if gradients is not None:
        out["gradient_norm"] = _norms(gradients, stacks)
        out["gradient_ratio"] = out["gradient_norm"] / size
        bad = [_rows(jnp.mean, ~jnp.isfinite(v), n) for v, n in zip(gradients, stacks, strict=True)]
        out["gradient_nonfinite"] = jnp.concatenate(bad).astype(jnp.float32)
    if updates is not None:
        out["update_ratio"] = _norms(updates, stacks) / size
    return out


def updates_of(optimizer: Any, gradients: Any, parameters: Any) -> Any:
    """What the optimizer's first step adds to the parameters."""
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    return updates


def _norms(arrays: Sequence[Any], stacks: Sequence[int]) -> Any:
    norms = [_norm(wide(v), stack) for v, stack in zip(arrays, stacks, strict=True)]
    return jnp.concatenate([v.astype(jnp.float32) for v in norms])


# Reduced over axes as they are: to reshape a gradient first would make a copy of it, in another layout.
def _rows(reduce: Callable[..., Any], array: Any, stack: int) -> Any:
    """Reduced over all but the first `stack` axes: one entry a layer."""
    found = reduce(array, axis=tuple(range(stack, array.ndim)))
    return found.reshape((math.prod(array.shape[:stack]),))


def _norm(array: Any, stack: int) -> Any:
    """Euclidean norms, at the scale of each layer's largest entry: squares neither over- nor underflow."""
    top = _rows(jnp.max, jnp.abs(array), stack)
    scale = jnp.where(jnp.isfinite(top) & (top > 0), top, 1)
    whole = scale.reshape(array.shape[:stack] + (1,) * (array.ndim - stack))
    return scale * jnp.sqrt(_rows(jnp.sum, jnp.square(array / whole), stack))
