"""Per parameter: its norm, its gradient's, and the norm of an optimizer's first update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit.probe._drawn import Drawn
from jaxinit.probe._rows import wide
from jaxinit.probe._unformed import figures

__all__ = ["parameter_rows", "updates_of"]


def parameter_rows(
    parameters: Sequence[Any],
    gradients: Sequence[Any] | None,
    updates: Sequence[Any] | None,
    stacks: Sequence[int],
    laws: Mapping[int, tuple[Drawn, tuple[int, ...]]],
) -> dict[str, Any]:
    """Statistics by name, each a vector: one entry a parameter, or one a layer where its first `stacks[i]` axes
    are layers.

    `laws`: of the parameters that are `Unformed`, with the shape of a layer; their gradients are the
    cotangents of their probes.
    """
    slopes: Sequence[Any] = [None] * len(parameters) if gradients is None else gradients
    unformed = _of_unformed(parameters, slopes, laws)
    norms, sizes, bad = [], [], []
    for n, (parameter, slope, stack) in enumerate(zip(parameters, slopes, stacks, strict=True)):
        if n in unformed:
            norms.append(unformed[n]["norm"])
            sizes.append(unformed[n]["gradient_norm"])
            bad.append(unformed[n]["gradient_nonfinite"])
            continue
        norms.append(_norm(wide(parameter), stack))
        if slope is not None:
            sizes.append(_norm(wide(slope), stack))
            bad.append(_rows(jnp.mean, ~jnp.isfinite(slope), stack))
    out = {"norm": _joined(norms)}
    size = jnp.where(out["norm"] > 0, out["norm"], jnp.nan)
    if gradients is not None:
        out["gradient_norm"] = _joined(sizes)
        out["gradient_ratio"] = out["gradient_norm"] / size
        out["gradient_nonfinite"] = _joined(bad)
    if updates is not None:
        steps = [_norm(wide(v), stack) for v, stack in zip(updates, stacks, strict=True)]
        out["update_ratio"] = _joined(steps) / size
    return out


def updates_of(optimizer: Any, gradients: Any, parameters: Any) -> Any:
    """What the optimizer's first step adds to the parameters."""
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    return updates


def _joined(rows: Sequence[Any]) -> Any:
    return jnp.concatenate([v.astype(jnp.float32) for v in rows])


def _of_unformed(
    parameters: Sequence[Any], slopes: Sequence[Any], laws: Mapping[int, tuple[Drawn, tuple[int, ...]]]
) -> dict[int, dict[str, Any]]:
    given = [parameters[n] for n in laws]
    rows = figures(
        given, [slopes[n] for n in laws], [law for law, _ in laws.values()], [s for _, s in laws.values()]
    )
    return dict(zip(laws, rows, strict=True))


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
