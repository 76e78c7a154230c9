"""What is differentiated: the given loss, or a random cotangent of the outputs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core import checks
from jaxinit.probe._inputs import shapes
from jaxinit.probe._rows import wide
from jaxinit.probe._trace import Traced

__all__ = ["RANDOM", "adapted", "check_labels", "random_loss"]

#: What the default loss is, for `config`.
RANDOM = "<r, f(x)>, r iid N(0, 1/n_out)"


#: `(output, labels, key) -> scalar`.
Loss = Callable[[Any, Any, Any], Any]


def adapted(where: str, loss: Any, traced: Traced, labels: Any) -> Loss:
    """The loss that was given, checked on the shapes of the output; or the random one."""
    if loss is None:
        return random_loss(traced.output_axes)
    if not callable(loss):
        raise checks.wrong_type(
            where, "loss", "a function of the output (and labels)", loss,
            "For classes: loss=lambda out, y: optax.softmax_cross_entropy_with_integer_labels(out, y).mean().",
        )  # fmt: skip
    if labels is None and _needs_labels(loss):
        raise checks.bad(
            where, "labels", "given, since the loss takes two arguments", None,
            f"Call {where}(..., loss=loss, labels=labels), or pass loss=lambda output: ...",
        )  # fmt: skip

    def of_output(out: Any, labels: Any, key: Any) -> Any:
        return loss(out) if labels is None else loss(out, labels)

    try:
        with jax.numpy_dtype_promotion("standard"):
            value = jax.eval_shape(of_output, traced.output_shape, labels, None)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise checks.bad(
            where, "loss", f"a function of outputs {shapes(traced.output_shape)}"
            + ("" if labels is None else f" and labels {shapes(labels)}"), getattr(loss, "__name__", loss),
            f"It failed with {type(error).__name__}: {first.rstrip('.')}.",
        ) from error  # fmt: skip
    if not hasattr(value, "shape") or value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise checks.bad(
            where, "loss", "a function to a real scalar", shapes(value) or value,
            "Average over the examples, e.g. lambda out: loss(out).mean().",
        )  # fmt: skip
    return of_output


def check_labels(where: str, loss: Any, traced: Traced, labels: Any) -> None:
    """Raises where the loss of an output is no finite number for these labels, and is one for labels of zeros: a class
    that the output has no entry for, or a missing value."""
    arrays = [v for v in jax.tree.leaves(labels) if isinstance(v, jax.Array)]
    if not arrays or not all(v.is_fully_addressable for v in arrays):
        return

    def of_some_output(labels: Any) -> Any:
        return loss(jax.tree.map(lambda v: jnp.full(v.shape, 0.5, v.dtype), traced.output_shape), labels)

    with jax.numpy_dtype_promotion("standard"):
        given, zeros = jax.jit(
            lambda y: (of_some_output(y), of_some_output(jax.tree.map(jnp.zeros_like, y)))
        )(labels)
    if jnp.isfinite(zeros) and not jnp.isfinite(given):
        span = [f"from {jnp.min(v)} to {jnp.max(v)}" for v in arrays]
        raise checks.bad(
            where, "labels", "such that the loss of a finite output is finite", ", ".join(span),
            f"The output is {shapes(traced.output_shape)}: class numbers are below its number of classes; mask what "
            "has no label in the loss.",
        )  # fmt: skip


def _needs_labels(loss: Any) -> bool:
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) == 2


def random_loss(batch_axes: Sequence[int | None]) -> Loss:
    """L = sum over examples a of <r, f(x_a)>, r iid N(0, 1/n_out), the same r for every example.

    `batch_axes`: for each floating leaf of the output, the axis that counts examples, or None. n_out is the
    number of entries of a leaf for one example.
    """

    def loss(out: Any, labels: Any, key: Any) -> Any:
        total = jnp.zeros((), jnp.float32)
        leaves = [v for v in jax.tree.leaves(out) if jnp.issubdtype(v.dtype, jnp.floating)]
        for n, (leaf, axis) in enumerate(zip(leaves, batch_axes, strict=True)):
            whole = wide(leaf) if axis is None else jnp.sum(wide(leaf), axis=axis)
            r = jax.random.normal(jax.random.fold_in(key, n), whole.shape, jnp.float32)
            r = r.astype(whole.dtype) / math.sqrt(max(1, math.prod(whole.shape)))
            total = total + jnp.sum(r * whole).astype(jnp.float32)
        return total

    return loss
