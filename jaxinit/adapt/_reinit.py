"""Redraw the parameters of a model by path rules, in one compiled call."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding

from jaxinit._core import checks
from jaxinit.adapt._paths import flatten, matcher
from jaxinit.initializers import Initializer, scaled

__all__ = ["reinit"]

#: index of the stream, initializer, shape, dtype, layout of one redrawn leaf
Plan = tuple[tuple[int, Initializer, tuple[int, ...], Any, Any], ...]


def _record(pattern: str, rule: Any) -> Initializer:
    if isinstance(rule, Initializer):
        return rule
    try:
        return scaled(rule, 1.0)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`reinit(rules=...)`, pattern {pattern!r}: {error}") from None


@functools.lru_cache(maxsize=1024)
def _rehearse(init: Initializer, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Let the initializer object to a shape or dtype before anything compiles."""
    jax.eval_shape(lambda key: init(key, shape, dtype), jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def _draw(plan: Plan, key: jax.Array) -> list[jax.Array]:
    return [
        init(jax.random.fold_in(key, stream), shape, dtype, sharding)
        for stream, init, shape, dtype, sharding in plan
    ]


def reinit(params: Any, rules: Mapping[str, Any], key: Any) -> Any:
    """`params` with the leaves that match a rule redrawn, the others as they are.

    Args:
        params: any pytree of arrays: the variables or parameters of a linen module (dict or FrozenDict, boxed with
            metadata or not), an `nnx.State` such as `nnx.state(model, nnx.Param)`, or abstract shapes of those.
        rules: from patterns of paths to initializers (or names, numbers, callables). A path joins its parts by
            "/", such as "params/encoder/Dense_0/kernel". In a pattern `*` and `?` stand for characters of one part
            and `**` for any number of parts, so "**/kernel" is every kernel. The first pattern that matches a path
            wins; the value None keeps the leaf.
        key: one jax.random key. Each leaf draws from its own stream, named by its path, so that a leaf's draw does
            not depend on what else the model or the rules hold.

    Returns:
        A pytree of the structure of `params`; shapes, dtypes and shardings are kept. All leaves are drawn by one
        compiled function.

    Raises:
        ValueError: if a pattern matches no leaf, or an initializer cannot draw a leaf's shape.
        TypeError: if a matching leaf is no floating-point array, or `params` is a module.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxinit.adapt import reinit
        >>> params = {"dense": {"kernel": jnp.zeros((4, 3)), "bias": jnp.ones(3)}}
        >>> new = reinit(params, {"**/kernel": "orthogonal"}, jax.random.key(0))
        >>> bool(jnp.abs(new["dense"]["kernel"]).sum() > 0), new["dense"]["bias"]
        (True, Array([1., 1., 1.], dtype=float32))
    """
    if isinstance(params, nnx.Module):
        raise checks.wrong_type(
            "reinit", "params", "parameters, not a module", type(params).__name__,
            "nnx.update(model, reinit(nnx.state(model, nnx.Param), rules, key)) changes the model.",
        )  # fmt: skip
    if not isinstance(rules, Mapping) or not rules or not all(isinstance(p, str) for p in rules):
        raise checks.wrong_type(
            "reinit", "rules", "a non-empty dict from path patterns to initializers", rules
        )
    compiled = [
        (p, matcher(p), None if rule is None else _record(p, rule), rule is None) for p, rule in rules.items()
    ]
    leaves, tree = flatten(params)
    matched: dict[str, int] = dict.fromkeys(rules, 0)
    plan: list[Any] = []
    where: list[int] = []
    for i, (path, leaf) in enumerate(leaves):
        hits = [(p, init, keep) for p, pattern, init, keep in compiled if pattern.fullmatch(path)]
        for p, _, _ in hits:
            matched[p] += 1
        if not hits or hits[0][2]:
            continue
        p, init, _ = hits[0]
        assert init is not None
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not (jnp.issubdtype(dtype, jnp.inexact) or init.any_dtype):
            raise checks.wrong_type(
                "reinit", "rules", f"matched to floating-point arrays only; {p!r} matches {path!r}", leaf
            )
        plan.append((zlib.crc32(path.encode()), init, tuple(leaf.shape), np.dtype(dtype), _layout(leaf)))
        where.append(i)
        try:
            _rehearse(init, tuple(leaf.shape), np.dtype(dtype))
        except (ValueError, TypeError) as error:
            raise type(error)(f"`reinit`: {path!r}, matched by {p!r}: {error}") from None
    for p, count in matched.items():
        if count == 0:
            paths = [path for path, _ in leaves]
            raise checks.bad(
                "reinit", "rules", "patterns that match a parameter", p, checks.nearest(p, paths)
            )
    values = [leaf for _, leaf in leaves]
    for i, w in zip(where, _draw(tuple(plan), key), strict=True):
        values[i] = w
    return jax.tree.unflatten(tree, values)


def _layout(leaf: Any) -> NamedSharding | None:
    """The sharding to keep: a leaf that lies on a mesh of several devices stays there."""
    sharding = getattr(leaf, "sharding", None)
    several = isinstance(sharding, NamedSharding) and len(sharding.device_set) > 1
    return sharding if several else None
