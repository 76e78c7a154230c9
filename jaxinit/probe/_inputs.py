"""What the model is called with: arrays, trees of call arguments, shapes to be drawn, several batches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks

__all__ = ["abstract", "batches_of", "drawer", "examples_of", "with_examples"]

_WAY_OUT = (
    "Pass an array, a tuple of the call's arguments, jax.ShapeDtypeStruct(shape, dtype) to have inputs drawn, or a "
    "list of such batches."
)


def batches_of(where: str, x: Any) -> list[tuple[Any, ...]]:
    """The batches, each as the tuple of the call's arguments."""
    given = x if isinstance(x, list) else [x]
    if not given:
        raise checks.bad(where, "x", "a batch or a list of at least one", x, _WAY_OUT)
    out = []
    for batch in given:
        args = batch if is_arguments(batch) else (batch,)
        out.append(jax.tree.map(lambda leaf: _checked(where, leaf), args))
        if not jax.tree.leaves(out[-1]):
            raise checks.wrong_type(where, "x", "a batch of arrays", batch, _WAY_OUT)
        if examples_of(out[-1]) == 0:
            raise checks.bad(where, "x", "a batch of at least one example", shapes(out[-1]))
    first = abstract(out[0])
    for batch in out[1:]:
        if abstract(batch) != first:
            rule = "a list of batches of the same shapes, so that one program serves them"
            raise checks.bad(where, "x", rule, [shapes(out[0]), shapes(batch)])
    return out


def is_arguments(batch: Any) -> bool:
    """A plain tuple is the arguments of the call; a named one is a single argument."""
    return isinstance(batch, tuple) and not hasattr(batch, "_fields")


def _checked(where: str, leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise checks.bad(
                where, "x", "of a floating dtype where it is to be drawn", str(leaf),
                "Pass real tokens or labels: their law is not known, e.g. np.random.default_rng(0).integers(...).",
            )  # fmt: skip
        return leaf
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float)):
        raise checks.wrong_type(where, "x", "made of arrays", leaf, _WAY_OUT)
    try:
        array = jnp.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise checks.wrong_type(where, "x", "made of arrays of numbers", leaf, _WAY_OUT) from error
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    if checks.is_concrete(array) and floating and not _finite(array):
        raise checks.bad(where, "x", "finite", "an array with nan or infinite entries")
    return array


def _finite(array: Any) -> bool:
    if array.is_fully_addressable:
        return bool(np.isfinite(np.asarray(array)).all())  # on the host, where nothing is compiled for it
    return bool(jnp.all(jnp.isfinite(array)))


def abstract(tree: Any) -> Any:
    """Shapes and dtypes; equal for batches that one program serves."""
    return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, _canonical(v.dtype)), tree)


def _canonical(dtype: Any) -> Any:
    """As jax holds it: int32 for int64 unless 64-bit numbers are enabled."""
    return (
        dtype if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else jax.dtypes.canonicalize_dtype(dtype)
    )


def shapes(tree: Any) -> str:
    """For messages: `float32[32,784]`, or several."""
    return ", ".join(
        f"{np.dtype(v.dtype) if not jax.dtypes.issubdtype(v.dtype, jax.dtypes.extended) else v.dtype}"
        f"[{','.join(map(str, v.shape))}]"
        for v in jax.tree.leaves(tree)
    )


def examples_of(args: Any) -> int | None:
    """The length of the first axis of the first array that has one."""
    return next((leaf.shape[0] for leaf in jax.tree.leaves(args) if leaf.ndim), None)


def with_examples(tree: Any, examples: int, now: int) -> Any:
    """The shapes with another number of examples, in place of `now`, on every first axis of that length."""
    return jax.tree.map(
        lambda v: (
            jax.ShapeDtypeStruct((now, *v.shape[1:]), v.dtype)
            if v.ndim and v.shape[0] == examples
            else jax.ShapeDtypeStruct(v.shape, v.dtype)
        ),
        tree,
    )


def drawer(args: Any) -> Any:
    """`(key, arrays) -> arguments` that fills in N(0, 1) entries where only shapes are given; None if none are."""
    leaves, structure = jax.tree.flatten(args)
    missing = [n for n, leaf in enumerate(leaves) if isinstance(leaf, jax.ShapeDtypeStruct)]
    if not missing:
        return None

    def draw(key: Any, arrays: list[Any]) -> Any:
        given = iter(arrays)
        filled = [
            jax.random.normal(jax.random.fold_in(key, n), leaf.shape, jnp.float32).astype(leaf.dtype)
            if n in missing
            else next(given)
            for n, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, filled)

    return draw


def given_of(args: Any) -> Any:
    """What of the arguments travels to the program: all, or the arrays among them where others are drawn."""
    leaves = jax.tree.leaves(args)
    arrays = [leaf for leaf in leaves if not isinstance(leaf, jax.ShapeDtypeStruct)]
    return args if len(arrays) == len(leaves) else arrays
