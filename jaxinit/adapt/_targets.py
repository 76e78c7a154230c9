"""What is asked of each site: which are to be scaled, and to what."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.adapt._paths import matcher
from jaxinit.probe import Layer, Products

__all__ = ["LEVELS", "NAMED", "Wanted", "any_of", "choose", "level_of", "matched", "patterns", "targets_of"]

#: Targets that have a name.
NAMED = ("unit", "preserve")
#: Names that say what method "critical" levels, where it is not the gradient; second moments stay near 1.
LEVELS = ("chi_1", "update_ratio")

#: By site: the layers it owns, and for a site without any its status and why.
Wanted = tuple[tuple[tuple[Layer, ...], ...], tuple[tuple[str, str] | None, ...]]


def choose(where: str, products: Products, zero: Sequence[np.ndarray], include: Any, exclude: Any) -> Wanted:
    """Which layers each site owns. `zero`: for each parameter, which of its layers are 0 throughout."""
    inside, outside = patterns(where, "include", include), patterns(where, "exclude", exclude)
    names = {n for p in products.products for n in _names(products, p)}
    for argument, chosen in (("include", inside), ("exclude", outside)):
        matched(where, argument, "patterns of sites or parameters that the model has", chosen, names)
    owner: dict[Layer, str] = {}
    own, kept = [], []
    for product in products.products:
        layers = [layer for whole in product.kernel for layer in _expanded(products, whole)]
        free = [layer for layer in layers if layer not in owner]
        known = _names(products, product)
        out = (inside and not any_of(inside, known)) or (outside and any_of(outside, known))
        alive = [layer for layer in free if not zero[layer.parameter][layer.at]]
        mine: list[Layer] = []
        reason: tuple[str, str] | None = None
        if not free:
            reason = ("shared", f"its parameters are those of {owner[layers[0]]}")
        elif out:
            reason = ("excluded", "")
        elif not alive:
            reason = ("zero-initialized branch kept", "")
        else:
            mine = alive
        owner.update((layer, product.name) for layer in free)
        own.append(tuple(mine))
        kept.append(reason)
    return tuple(own), tuple(kept)


def _expanded(products: Products, layer: Layer) -> list[Layer]:
    """The layers that a parameter used as a whole is made of."""
    return products.layers(layer.parameter) if layer.at == () else [layer]


def _names(products: Products, product: Any) -> set[str]:
    return {product.name, *(products.layer_name(layer) for layer in product.kernel),
            *(products.names[layer.parameter] for layer in product.kernel)}  # fmt: skip


def matched(
    where: str, argument: str, rule: str, chosen: Sequence[tuple[str, Any]], names: Collection[str]
) -> None:
    """Refuse a pattern that is none of a name."""
    for text, pattern in chosen:
        if not any(pattern.fullmatch(n) for n in names):
            raise checks.bad(where, argument, rule, text, checks.nearest(text, sorted(names)))


def any_of(chosen: Sequence[tuple[str, Any]], names: set[str]) -> bool:
    return any(pattern.fullmatch(n) for _, pattern in chosen for n in names)


def patterns(where: str, argument: str, value: Any) -> list[tuple[str, Any]]:
    """Glob patterns, compiled; none for None."""
    if value is None:
        return []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(t, str) for t in texts):
        raise checks.wrong_type(
            where, argument, "a glob pattern of paths, or several", value, 'For example "**/kernel".'
        )
    return [(text, matcher(text)) for text in texts]


def level_of(where: str, target: Any, method: str) -> tuple[str, Any]:
    """What is to be level, and the target of second moments."""
    if not (isinstance(target, str) and target in LEVELS):
        return "gradient", target
    if method != "critical":
        rule = f"of second moments with method={method!r}"
        raise checks.bad(where, "target", rule, target, f"method='critical' has target={target!r}.")
    return target, "unit"


def targets_of(where: str, products: Products, target: Any, batches: Sequence[Any]) -> np.ndarray:
    """By site, what its statistic should be; nan where nothing is asked."""
    count = len(products.products)
    if isinstance(target, Mapping):
        out = np.full(count, np.nan)
        rules = [(patterns(where, "target", text)[0], _positive(where, v)) for text, v in target.items()]
        names = {n for p in products.products for n in _names(products, p)}
        matched(where, "target", "patterns that some site matches", [chosen for chosen, _ in rules], names)
        for n, product in enumerate(products.products):
            hits = (value for rule, value in rules if any_of([rule], _names(products, product)))
            out[n] = next(hits, np.nan)
        return out
    if isinstance(target, str):
        checks.choice(where, "target", target, (*NAMED, *LEVELS))
        return np.full(count, 1.0 if target == "unit" else _input(where, batches))
    return np.full(count, _positive(where, target))


def _positive(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        rule = "'unit', 'preserve', a positive number, or a dict from patterns to numbers"
        raise checks.wrong_type(where, "target", rule, value)
    if not (math.isfinite(value) and value > 0):
        raise checks.bad(
            where, "target", "positive", value, "Sites that are to be left alone go into exclude=."
        )
    return float(value)


def _input(where: str, batches: Sequence[Any]) -> float:
    """The second moment of the floating inputs."""
    leaves = [v for v in jax.tree.leaves(list(batches)) if jnp.issubdtype(v.dtype, jnp.floating)]
    total = sum(float(np.sum(np.square(np.asarray(v, np.float64)))) for v in leaves)
    if total == 0:
        found = "a batch of zeros" if leaves else "a batch of integers"
        raise checks.bad(
            where, "target", "'unit' or a number for inputs without a second moment to preserve", "preserve",
            f"This is {found}.",
        )  # fmt: skip
    return total / sum(v.size for v in leaves)
