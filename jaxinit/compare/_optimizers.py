"""Optimizers as functions of the learning rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from jaxinit._core import checks


def none(learning_rate: Any) -> optax.GradientTransformation:
    """The baseline of a study: no step at all, so that the test figures are those of the drawn network."""
    return optax.set_to_zero()


#: The optimizers known by name.
NAMED: dict[str, Callable[[Any], Any]] = {
    "sgd": optax.sgd,
    "momentum": partial(optax.sgd, momentum=0.9),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "none": none,
}
_WAY_OUT = "Pass a name or a factory such as `lambda learning_rate: optax.sgd(learning_rate, momentum=0.9)`."


def optimizer_of(optimizer: Any) -> tuple[str, Callable[[Any], Any]]:
    """Name and factory `learning_rate -> optax.GradientTransformation`; the factory is tried once."""
    if isinstance(optimizer, str):
        if optimizer not in NAMED:
            rule = "a known optimizer or a factory"
            raise checks.bad("compare", "optimizer", rule, optimizer, checks.nearest(optimizer, NAMED))
        return optimizer, NAMED[optimizer]
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        rule = "a factory of the learning rate, so that one program serves all rates"
        raise checks.wrong_type("compare", "optimizer", rule, type(optimizer).__name__, _WAY_OUT)
    if not callable(optimizer):
        raise checks.wrong_type("compare", "optimizer", "a name or a factory", optimizer, _WAY_OUT)
    made = optimizer(0.01)
    if not (hasattr(made, "init") and hasattr(made, "update")):
        rule = "a factory `learning_rate -> optax.GradientTransformation`"
        raise checks.wrong_type("compare", "optimizer", rule, made, _WAY_OUT)
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    return ("optimizer" if name == "<lambda>" else name), optimizer


@dataclasses.dataclass(frozen=True)
class FixedRate:
    """A factory at one learning rate: it passes over the one it is called with."""

    factory: Callable[[Any], Any]
    rate: float

    def __call__(self, _: Any) -> Any:
        return self.factory(self.rate)


def takes_traced_rate(factory: Callable[[Any], Any]) -> bool:
    """Whether the factory works with a learning rate that is data of a compiled program.

    Most do. One that looks at its value (`optax.warmup_cosine_decay_schedule` divides by the peak if it is
    not 0) needs a program for each rate.
    """

    def build(rate: Any) -> Any:
        transformation = factory(rate)
        params = {"w": jax.numpy.zeros(1)}
        return transformation.update(params, transformation.init(params), params)[0]

    try:
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(build, jax.ShapeDtypeStruct((), jax.numpy.float32))
    except (jax.errors.ConcretizationTypeError, TypeError):
        return False
    return True
