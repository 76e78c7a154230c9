"""Per parameter: its norm, its gradient's, and the norm of an optimizer's first update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.probe._drawn import Drawn
from jaxinit.probe._layout import exponent, power
from jaxinit.probe._rows import wide
from jaxinit.probe._unformed import figures

__all__ = ["parameter_rows", "updates_of"]

#: Arrays of up to this many entries are small: to copy them costs nothing.
_SMALL = 1 << 13


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
    formed = [n for n in range(len(parameters)) if n not in unformed]

    def figure(name: str, sums: tuple[list[int], Any]) -> Any:
        """Of all parameters in order, from those that are formed in another and those that are not."""
        owners, values = sums
        rest = [unformed[n][name].astype(jnp.float32) for n in unformed]
        owners = owners + [n for n, row in zip(unformed, rest, strict=True) for _ in range(len(row))]
        return jnp.concatenate([values, *rest])[np.argsort(owners, kind="stable")]

    owners, norms = _norms(parameters, formed, stacks)
    out = {"norm": figure("norm", (owners, norms))}
    size = jnp.where(out["norm"] > 0, out["norm"], jnp.nan)
    if gradients is not None:
        owners, norms = _norms(gradients, formed, stacks)
        out["gradient_norm"] = figure("gradient_norm", (owners, norms))
        out["gradient_ratio"] = out["gradient_norm"] / size
        out["gradient_nonfinite"] = (~jnp.isfinite(out["gradient_norm"])).astype(jnp.float32)
    if updates is not None:
        owners, norms = _norms(updates, formed, stacks)
        out["update_ratio"] = figure("", (owners, norms)) / size
    return out


def updates_of(optimizer: Any, gradients: Any, parameters: Any) -> Any:
    """What the optimizer's first step adds to the parameters."""
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    return updates


def _of_unformed(
    parameters: Sequence[Any], slopes: Sequence[Any], laws: Mapping[int, tuple[Drawn, tuple[int, ...]]]
) -> dict[int, dict[str, Any]]:
    given = [parameters[n] for n in laws]
    rows = figures(
        given, [slopes[n] for n in laws], [law for law, _ in laws.values()], [s for _, s in laws.values()]
    )
    return dict(zip(laws, rows, strict=True))


def _norms(arrays: Sequence[Any], which: Sequence[int], stacks: Sequence[int]) -> tuple[list[int], Any]:
    """Of these arrays, one entry a layer: whose it is, and the Euclidean norm.

    Small arrays of one shape are reduced together, and what remains to be done with the sums is done for all at once:
    fewer operations to compile.
    """
    groups: dict[Any, list[int]] = {}
    for n in which:
        array = arrays[n]
        alone = n if array.size > _SMALL else -1
        groups.setdefault((alone, array.shape, array.dtype, stacks[n]), []).append(n)
    tops, sums, owners = list[Any](), list[Any](), list[int]()
    for (_, shape, _, stack), members in groups.items():
        several = len(members) > 1
        array = jnp.stack([arrays[n] for n in members]) if several else arrays[members[0]]
        if jnp.iscomplexobj(array):
            array = jnp.stack([array.real, array.imag], axis=-1)
        array = wide(array)
        layers = math.prod(shape[:stack]) * len(members)
        for values, found in zip((tops, sums), _sums(array, stack + several), strict=True):
            values.append(found.reshape((layers,)).astype(jnp.float32))
        owners += [n for n in members for _ in range(layers // len(members))]
    if not owners:
        return [], jnp.zeros(0)
    top, total = jnp.concatenate(tops), jnp.concatenate(sums)
    # A maximum does not tell of nan everywhere; the squares do.
    return owners, jnp.sqrt(total) * power(exponent(top), jnp.float32)


def _sums(array: Any, stack: int) -> tuple[Any, Any]:
    """The largest entry of each layer, and the sum of squares at the scale of that.

    Reduced over axes as they are: to reshape a gradient first would make a copy of it, in another layout. The barrier
    keeps the two reductions of a gradient together: a scheduler that does the first ones of all layers first would
    have to hold all gradients.
    """
    inner = tuple(range(stack, array.ndim))
    top = jnp.max(jnp.abs(array), axis=inner)
    array, scale = jax.lax.optimization_barrier((array, power(-exponent(top), array.dtype)))
    return top, jnp.sum(jnp.square(array * scale.reshape(scale.shape + (1,) * len(inner))), axis=inner)
