"""What is minimized, and what is counted: loss and accuracy of outputs against targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core import checks

LOSSES = ("cross_entropy", "mse")


@dataclasses.dataclass(frozen=True)
class Task:
    """`loss(outputs, targets)` is one number an example, `(batch,)`; accuracy where targets are labels."""

    name: str
    loss: Callable[[Any, Any], Any]
    classification: bool

    def figures(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        """Per example: the loss, and whether the greatest output is the label (0 without labels)."""
        losses = self.losses(outputs, targets)
        if not self.classification:
            return losses, jnp.zeros_like(losses)
        return losses, (jnp.argmax(outputs, axis=-1) == targets).astype(jnp.float32)

    def losses(self, outputs: Any, targets: Any) -> Any:
        """The loss of each example in float32 or better; a scalar loss stands for all of them."""
        wide = jnp.promote_types(outputs.dtype, jnp.float32)
        losses = self.loss(outputs.astype(wide), targets)
        return jnp.broadcast_to(losses, targets.shape[:1]) if jnp.ndim(losses) == 0 else losses


def cross_entropy(outputs: Any, labels: Any) -> Any:
    """-log softmax(outputs)[label]."""
    chosen = jnp.take_along_axis(outputs, labels[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(outputs, axis=-1) - chosen


def mean_squared_error(outputs: Any, targets: Any) -> Any:
    """Mean over outputs of (output - target)^2."""
    return jnp.mean(jnp.square(outputs.reshape(targets.shape) - targets), axis=-1)


def task(loss: Any, classification: bool) -> Task:
    """The task named or given by `loss`; None takes cross-entropy for labels, squared error for numbers."""
    if loss is None:
        loss = "cross_entropy" if classification else "mse"
    if callable(loss):
        return Task(getattr(loss, "__name__", "loss"), loss, classification)
    if not isinstance(loss, str):
        raise checks.wrong_type("compare", "loss", "a name or a callable (outputs, targets)", loss)
    checks.choice("compare", "loss", loss, LOSSES)
    if (loss == "cross_entropy") != classification:
        needs = "integer labels" if loss == "cross_entropy" else "real targets"
        rule = f"one for these data ({loss!r} needs {needs})"
        raise checks.bad(
            "compare", "loss", rule, loss, "Pass a callable (outputs, targets) -> (batch,) losses."
        )
    return Task(loss, cross_entropy if classification else mean_squared_error, classification)
