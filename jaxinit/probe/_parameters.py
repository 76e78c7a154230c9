"""Per parameter: its norm, its gradient's, and the norm of an optimizer's first update."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        bad = [jnp.mean(~jnp.isfinite(v), axis=1, dtype=jnp.float32) for v in _layers(gradients, stacks)]
        out["gradient_nonfinite"] = jnp.concatenate(bad)
    if updates is not None:
        out["update_ratio"] = _norms(updates, stacks) / size
    return out


def updates_of(optimizer: Any, gradients: Any, parameters: Any) -> Any:
    """What the optimizer's first step adds to the parameters."""
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    return updates


def _layers(arrays: Sequence[Any], stacks: Sequence[int]) -> list[Any]:
    out = []
    for array, stack in zip(arrays, stacks, strict=True):
        rows = math.prod(array.shape[:stack])
        out.append(wide(array).reshape((rows, -1)))
    return out


def _norms(arrays: Sequence[Any], stacks: Sequence[int]) -> Any:
    return jnp.concatenate([_norm(v).astype(jnp.float32) for v in _layers(arrays, stacks)])


def _norm(rows: Any) -> Any:
    """Euclidean norms of rows, at the scale of each row's largest entry: squares neither over- nor underflow."""
    top = jnp.max(jnp.abs(rows), axis=1)
    usable = jnp.isfinite(top) & (top > 0)
    scale = jnp.where(usable, top, 1)
    return scale * jnp.sqrt(jnp.sum(jnp.square(rows / scale[:, None]), axis=1))
