"""A model, traced with its marks and planned; nothing is compiled here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.errors import ScopeCollectionNotFound, ScopeParamNotFoundError, SetAttributeFrozenModuleError
from jax.extend import core

from jaxinit._core import checks
from jaxinit.models import MadeLate, Marked
from jaxinit.probe import _inputs as inputs
from jaxinit.probe import equations
from jaxinit.probe._plan import Path, Plan, make_plan
from jaxinit.probe._purity import differs, traced_again

__all__ = ["Traced", "trace"]

#: Errors of Python code that wants the values of a program that is only traced.
_UNTRACEABLE = (
    jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError, jax.errors.NonConcreteBooleanIndexError,
)  # fmt: skip

_LAZY = "Call it once in the factory: lambda rngs: nnx.bridge.lazy_init(MyModule(rngs=rngs), x)."


@dataclasses.dataclass(frozen=True)
class Traced:
    """A planned model.

    Attributes:
        plan: its places, the batch axis of each found by a second trace with twice the examples.
        output: the structure of the output; `output_shape` its shapes.
        output_axes: the batch axis of each floating leaf of the output.
        assumed: whether the structure of the program depends on the number of examples, so that axis 0 is assumed
            to count them wherever it has their number.
        bytes: all values of one evaluation, an upper bound of the memory of a seed.
        settled: whether the second trace has the same numbers in it, changed nothing in the model and left nothing in
            Python: a third one, for the same examples, would tell nothing new.
    """

    plan: Plan
    output: Any
    output_shape: Any
    output_axes: tuple[int | None, ...]
    assumed: bool
    bytes: int
    settled: bool


def trace(
    where: str, model: Marked, params: Any, state: Any, args: Any, scales: Callable[[str], bool] | None = None
) -> Traced:
    """Trace and plan (`scales`: see `make_plan`) `model.apply` for parameters, state and arguments of these shapes."""
    names = [path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
    key = jax.random.key(0, impl="threefry2x32")
    closed, shape = _trace(where, model, params, state, args, key)
    if not names:
        raise checks.bad(
            where, "model", "a model with parameters", model.name, "There is nothing to initialize in it."
        )
    first = len(names) + len(jax.tree.leaves(state))
    signal = range(first, first + len(jax.tree.leaves(args)))
    plan = make_plan(closed, names, signal, scales)
    examples = inputs.examples_of(args) or 1
    other = _twice(model, params, state, args, key, names, signal, examples, scales)
    if other is None and _is_one_example(model, params, state, args, key):
        raise checks.bad(
            where, "x", "a batch, whose first axis counts the examples", inputs.shapes(args),
            f"{model.name} cannot be called with {2 * examples} of them: it takes this for a single one. Pass x[None].",
        )  # fmt: skip
    floating = [v for v in jax.tree.leaves(shape) if jnp.issubdtype(v.dtype, jnp.floating)]
    if not floating:
        raise checks.bad(where, "model", "a model with a floating output", inputs.shapes(shape))
    settled = (
        other is not None and not other.kept and not model.changes and differs(closed, other.program) is None
    )
    if other is not None and _alike(plan, other.plan):
        for place, twin in zip(plan.places, other.plan.places, strict=True):
            place.batch_axis = _changed(place.shape, twin.shape)
        wider = [v for v in jax.tree.leaves(other.output) if jnp.issubdtype(v.dtype, jnp.floating)]
        axes = tuple(_changed(a.shape, b.shape) for a, b in zip(floating, wider, strict=True))
    else:
        other = None
        for place in plan.places:
            place.batch_axis = 0 if place.shape[0] == examples else None
        axes = tuple(0 if v.ndim and v.shape[0] == examples else None for v in floating)
    size = _bytes(closed.jaxpr)
    return Traced(plan, jax.tree.structure(shape), shape, axes, other is None, size, settled)


def _trace(where: str, model: Marked, params: Any, state: Any, args: Any, key: Any) -> tuple[Any, Any]:
    try:
        return jax.make_jaxpr(model.apply, return_shape=True)(params, state, args, key)
    except Exception as error:
        raise refused(where, model, args, error) from error


def refused(where: str, model: Marked, args: Any, error: Exception) -> ValueError:
    """The model does not take these inputs, or cannot be traced at all: its own words, and what it was given."""
    first = (str(error).strip().splitlines() or [""])[0]
    words = f"The call failed with {type(error).__name__}: {first.rstrip('.')}."
    if isinstance(error, MadeLate):
        return checks.bad(
            where, "model", "one that has all its parameters when it is made", model.name,
            f"It makes {error} when it is called. {_LAZY}",
        )  # fmt: skip
    if isinstance(error, (ScopeCollectionNotFound, ScopeParamNotFoundError)):
        return checks.bad(
            where, "model", "one that has all its parameters when it is made", model.name,
            f"{words} {_LAZY}",
        )  # fmt: skip
    numbers = all(v.shape == () for v in jax.tree.leaves(args))
    if isinstance(error, _UNTRACEABLE) and not numbers:
        return checks.bad(
            where, "model", "one that jax can trace (jit would fail in the same way)", model.name,
            f"{words} Python's `if`, int(), float() and NumPy need values that a traced program does not have: use "
            "jnp.where, jax.lax.cond and jax.numpy.",
        )  # fmt: skip
    if isinstance(error, SetAttributeFrozenModuleError):
        return checks.bad(
            where, "model", "one that leaves its attributes alone when it is called", model.name,
            f"{words} Keep what changes in a variable: self.variable('counters', 'n', jnp.zeros, ()).",
        )  # fmt: skip
    way_out = "Several arguments are passed as a tuple, x=(tokens, mask)."
    if numbers:
        way_out = (
            "Numbers are no batch: np.asarray(x) is one, and jax.ShapeDtypeStruct((32, 784), jnp.float32) has "
            "inputs of a shape drawn."
        )
    elif isinstance(error, NameError) and "axis name" in first:
        way_out = "A probe has no such axis: make the model without its axis_name."
    return checks.bad(
        where, "x", f"inputs that {model.name} can be called with", inputs.shapes(args), f"{words} {way_out}"
    )


class _Twin(NamedTuple):
    """A trace for twice as many examples; `kept` says whether values of it are kept in Python."""

    program: core.ClosedJaxpr
    plan: Plan
    output: Any
    kept: bool


def _twice(
    model: Marked,
    params: Any,
    state: Any,
    args: Any,
    key: Any,
    names: Sequence[Path],
    signal: range,
    examples: int,
    scales: Callable[[str], bool] | None,
) -> _Twin | None:
    """The trace for twice as many examples, or None for a model that cannot be called so."""
    try:
        wide = inputs.with_examples(args, examples, 2 * examples)
        closed, shape, kept = traced_again(model.apply, params, state, wide, key)
    except Exception:  # a model may say no to another batch in any way it likes
        return None
    return _Twin(closed, make_plan(closed, names, signal, scales), shape, kept)


def _is_one_example(model: Marked, params: Any, state: Any, args: Any, key: Any) -> bool:
    """Whether vectors, of which twice the length is no input, are inputs as rows."""
    if any(v.ndim != 1 or not jnp.issubdtype(v.dtype, jnp.floating) for v in jax.tree.leaves(args)):
        return False
    rows = jax.tree.map(lambda v: jax.ShapeDtypeStruct((1, *v.shape), v.dtype), args)
    try:
        jax.eval_shape(model.apply, params, state, rows, key)
    except Exception:  # as for another batch
        return False
    return True


def _alike(a: Plan, b: Plan) -> bool:
    return [_identity(p) for p in a.places] == [_identity(p) for p in b.places]


def _identity(place: Any) -> Any:
    return place.role, place.kind, place.path, place.leaf, len(place.shape), place.loops


def _changed(shape: Sequence[int], other: Sequence[int]) -> int | None:
    return next((n for n, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b), None)


def path_of(path: Sequence[Any]) -> Path:
    """Components of a parameter's path, whatever the tree is made of."""
    return tuple(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)


def _bytes(jaxpr: core.Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        inside = sum(_bytes(body) for body in core.jaxprs_in_params(eqn.params))
        own = sum(_size(v) for v in eqn.outvars)
        total += max(own, inside * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else inside)
    return total


def _size(v: Any) -> int:
    shape = getattr(equations.aval(v), "shape", ())
    return math.prod(shape) * getattr(equations.aval(v).dtype, "itemsize", 8)
