"""What a method of `calibrate` is given, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.probe import Figures, Layer, Products

__all__ = ["Case", "Outcome", "ownership", "placed", "scaled_leaves"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with its parameters, and what is asked for.

    Sites are `products.products`, in the order of execution; everything "by site" has their order and length.

    Attributes:
        products: the traced model.
        leaves: its parameters in the order of `products.names`, as drawn.
        state: collections that are not trained.
        batches: tuples of the call's arguments, arrays.
        key: for dropout and random cotangents.
        own: by site, the layers of parameters that it scales: those of its kernel that no earlier site owns; empty
            where nothing is to be changed.
        kept: by site without own layers, its status and why; None for the others.
        zero: for each parameter, in the shape of its stacks, which of its layers are 0.
        bias: by site, the layers of its bias if they may be shifted.
        targets: by site, what the statistic should be; nan where nothing is asked.
        statistic: "second moment" or "variance".
        tolerance: how far from the target a site may stay, relative.
        passes: how often a site may be scaled.
        loss, labels: what was given, or None.
        options: further options of the method, checked by it.
    """

    products: Products
    leaves: tuple[Any, ...]
    state: Any
    batches: tuple[Any, ...]
    key: Any
    own: tuple[tuple[Layer, ...], ...]
    kept: tuple[tuple[str, str] | None, ...]
    zero: tuple[np.ndarray, ...]
    bias: tuple[tuple[Layer, ...], ...]
    targets: np.ndarray
    statistic: str
    tolerance: float
    passes: int
    labels: tuple[Any, ...] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def movable(self) -> np.ndarray:
        """By site, whether it owns anything."""
        return np.array([bool(layers) for layers in self.own])


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a method found, by site.

    Attributes:
        factors: what the layers owned by each site are multiplied with; 1 elsewhere.
        shifts: what is added to its bias.
        before, after: the statistic; nan where there is none.
        iterations: how often its scale was changed.
        status: a key of `jaxinit.records.STATUSES`, and why.
        evaluations: of the whole model, rounded up.
        statistic: what `before` and `after` are, where it is not the case's own.
        targets: where they are not the case's own.
        figures: numbers of the whole model.
        leaves: the new parameters, where the method has made them already.
        seen: what was measured last, if anything was.
    """

    factors: np.ndarray
    shifts: np.ndarray
    before: np.ndarray
    after: np.ndarray
    iterations: np.ndarray
    status: tuple[tuple[str, str], ...]
    evaluations: int
    statistic: str | None = None
    targets: np.ndarray | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    leaves: Any = None
    seen: Figures | None = None


def ownership(products: Products, layers: Sequence[Sequence[Layer]]) -> list[np.ndarray | None]:
    """For each parameter, the site that owns each of its layers, in the shape of its stacks, -1 for none; None for a
    parameter of which nothing is owned."""
    owner = [np.full(stack, -1, np.int32) for stack in products.stacks]
    for site, own in enumerate(layers):
        for layer in own:
            owner[layer.parameter][layer.at] = site
    return [own if (own >= 0).any() else None for own in owner]


def scaled_leaves(
    leaves: Sequence[Any], owner: Sequence[Any], factors: Any, bias: Sequence[Any], shifts: Any
) -> list[Any]:
    """The parameters with every site's factor on its layers and its shift on its biases.

    In float32 or better, and rounded once to each parameter's own type; what no site owns is left as it is. Traceable;
    NumPy's factors and shifts scale NumPy's arrays by NumPy.
    """
    out = []
    for leaf, own, moved in zip(leaves, owner, bias, strict=True):
        if own is not None or moved is not None:
            leaf = _scaled(leaf, _by_layer(own, factors, 1, leaf), _by_layer(moved, shifts, 0, leaf))
        out.append(leaf)
    return out


def on_host(leaf: Any) -> bool:
    """Whether NumPy sees the array where it is."""
    return isinstance(leaf, np.ndarray) or (
        isinstance(leaf, jax.Array)
        and not isinstance(leaf, jax.core.Tracer)
        and all(device.platform == "cpu" for device in leaf.devices())
        and len(leaf.devices()) == 1
    )


def _by_layer(site: np.ndarray | None, values: Any, otherwise: float, leaf: Any) -> Any:
    """Each layer's value, to be broadcast over it; None where nothing is owned."""
    if site is None:
        return None
    where = np.where if isinstance(values, np.ndarray) else jnp.where
    shape = site.shape + (1,) * (leaf.ndim - site.ndim)
    return where(site >= 0, values[site], otherwise).reshape(shape).astype(_wide(leaf))


def _wide(leaf: Any) -> Any:
    return np.float64 if leaf.dtype == np.float64 else np.float32


def _scaled(leaf: Any, factor: Any, shift: Any) -> Any:
    if not on_host(leaf) or not all(isinstance(v, (np.ndarray, type(None))) for v in (factor, shift)):
        return _scaled_there(leaf, factor, shift)
    return placed(_product(np.asarray(leaf), factor, shift), leaf)


def placed(value: Any, like: Any) -> Any:
    """The value where the other one is; bound to a device only if that is, since programs are compiled apart for it."""
    return jax.device_put(value, like.sharding if getattr(like, "committed", False) else None)


def _product(leaf: Any, factor: Any, shift: Any) -> Any:
    new = leaf.astype(_wide(leaf))
    new = new if factor is None else new * factor
    new = new if shift is None else new + shift
    return new.astype(leaf.dtype)


_scaled_there = jax.jit(_product)
