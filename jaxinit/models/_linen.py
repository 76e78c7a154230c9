"""Linen modules as pairs of pure functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from jaxinit._core import checks
from jaxinit.models._functional import Initializer, Model

#: Arguments of `__call__` by which linen models are told that they are being trained, and their value then.
_TRAINING_FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False}


def of_module(module: nn.Module) -> Model:
    """The same pair of functions for equal modules, so that what was compiled for one serves the next."""
    try:
        return _remembered(module)
    except TypeError:  # a field that cannot be hashed
        return from_module(module)


@functools.lru_cache(maxsize=32)
def _remembered(module: nn.Module) -> Model:
    return from_module(module)


def from_module(module: nn.Module) -> Model:
    """A module whose `kernel_init` field, or that of its submodules, is replaced."""
    if hasattr(module, "kernel_init"):
        return _model(module, lambda initializer: module.clone(kernel_init=initializer), own=module)

    def init(initializer: Initializer | None, key: Any, x: Any) -> tuple[Any, Any]:
        if initializer is None:
            return _init(module, key, x)
        with nn.intercept_methods(_replacing(initializer)):
            return _init(module, key, x)

    return Model(type(module).__name__, init, _apply(module))


def from_factory(factory: Any, make: Callable[[Initializer], Any]) -> Model:
    """A factory that is given the initializer."""
    is_class = inspect.isclass(factory) and issubclass(factory, nn.Module)
    own = factory() if is_class else None
    name = getattr(factory, "__name__", type(factory).__name__)
    return _model(_checked(make(nn.initializers.zeros_init())), lambda i: _checked(make(i)), own, name)


def _model(
    template: nn.Module, make: Callable[[Any], Any], own: nn.Module | None, name: str | None = None
) -> Model:
    def init(initializer: Initializer | None, key: Any, x: Any) -> tuple[Any, Any]:
        module = own if initializer is None else make(initializer)
        if module is None:
            raise ValueError(
                f"the factory {name!r} has no initializer of its own, so the default initializer `None` cannot "
                "be drawn. Pass a module instance, or name the initializer."
            )
        return _init(module, key, x)

    label = type(template).__name__
    return Model(label if name in (None, "<lambda>") else str(name), init, _apply(template))


def _checked(module: Any) -> nn.Module:
    if isinstance(module, nn.Module):
        return module
    raise checks.wrong_type("adapt", "model", "a factory `kernel_init -> linen module`", module)


def _replacing(initializer: Initializer) -> Callable[..., Any]:
    """An interceptor that gives every submodule with a field `kernel_init` this one.

    The module's own code then calls it, with the shape that the module knows to be right (attention flattens
    its heads, scanned layers draw one layer each).
    """

    def interceptor(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if hasattr(context.module, "kernel_init"):
            object.__setattr__(context.module, "kernel_init", initializer)
        return call(*args, **kwargs)

    return interceptor


def _flags(module: nn.Module, train: bool) -> dict[str, Any]:
    arguments = inspect.signature(type(module).__call__).parameters
    return {name: (value == train) for name, value in _TRAINING_FLAGS.items() if name in arguments}


def _init(module: nn.Module, key: Any, x: Any) -> tuple[Any, Any]:
    with jax.numpy_dtype_promotion("standard"):
        variables = nn.unbox(module.init({"params": key}, x, **_flags(module, train=False)))
    state = {name: value for name, value in variables.items() if name not in ("params", "intermediates")}
    return variables.get("params", {}), state


def _apply(module: nn.Module) -> Callable[..., tuple[Any, Any]]:
    def apply(params: Any, state: Any, x: Any, train: bool, key: Any) -> tuple[Any, Any]:
        variables = {"params": params, **state}
        rngs = None if key is None else {"dropout": key}
        with jax.numpy_dtype_promotion("standard"):
            if train and state:
                return module.apply(variables, x, rngs=rngs, mutable=list(state), **_flags(module, train))
            return module.apply(variables, x, rngs=rngs, **_flags(module, train)), state

    return apply
