"""The one shape in which every model reaches the rest of the library: `init` and `apply`, both pure."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from flax import linen as nn
from flax import nnx

from jaxinit._core import checks

__all__ = ["Model", "adapt", "from_functions"]

#: `(key, shape, dtype) -> array`, as Flax calls it; None stands for the initializers the model has of itself.
Initializer = Callable[..., Any]

_WAY_OUT = (
    "Pass a linen module, a linen class or factory that takes `kernel_init`, an nnx factory that takes "
    "`rngs`, or jaxinit.models.from_functions(init, apply)."
)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as two pure functions.

    Attributes:
        name: what to call it.
        init: `(initializer, key, x) -> (params, state)`: the parameters drawn from `key` for inputs like
            the batch `x`, with every kernel drawn by `initializer` (None: by the model's own), and the
            collections that are not trained (empty for most models).
        apply: `(params, state, x, train, key) -> (output, state)`. `train` is a Python bool; `key` feeds
            dropout and the like, and may be None when `train` is False.
    """

    name: str
    init: Callable[[Initializer | None, Any, Any], tuple[Any, Any]]
    apply: Callable[[Any, Any, Any, bool, Any], tuple[Any, Any]]


def from_functions(init: Callable[..., Any], apply: Callable[..., Any], name: str = "functions") -> Model:
    """A model from two plain functions, for code that uses no module system.

    Args:
        init: `(initializer, key, x) -> params`; `initializer` is a `(key, shape, dtype)` callable, or None
            for the model's own way of drawing.
        apply: `(params, x) -> output`.
        name: what to call the model.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxinit.models import from_functions
        >>> def init(initializer, key, x):
        ...     draw = initializer or jax.nn.initializers.lecun_normal()
        ...     return {"w": draw(key, (x.shape[-1], 2), jnp.float32)}
        >>> linear = from_functions(init, lambda params, x: x @ params["w"])
        >>> params, state = linear.init(jax.nn.initializers.ones, jax.random.key(0), jnp.ones((1, 3)))
        >>> linear.apply(params, state, jnp.ones((1, 3)), False, None)[0].tolist()
        [[3.0, 3.0]]
    """
    for argument, value in (("init", init), ("apply", apply)):
        if not callable(value):
            raise checks.wrong_type("from_functions", argument, "a callable", value)
    return Model(
        name,
        lambda initializer, key, x: (init(initializer, key, x), {}),
        lambda params, state, x, train, key: (apply(params, x), state),
    )


def adapt(model: Any, *, where: str = "adapt") -> Model:
    """The pair of pure functions behind a model.

    How an initializer gets into the model depends on what the model is:

    - a callable with an argument `kernel_init` (a linen class, a factory; also one that takes a single
      positional argument) is called with the initializer;
    - a linen module with a field `kernel_init` is cloned with that field replaced;
    - of any other linen module, every submodule that has a field `kernel_init` draws with the initializer in
      its place (so attention and scanned layers hand over the shapes of their own kernels);
    - of any other nnx module, made by a factory `rngs -> module`, every parameter named `kernel` is drawn
      anew.

    Biases, scales and embeddings keep the model's own initializers. The model's function must not depend on
    the initializer: one function is compiled for all.

    Raises:
        TypeError: the model is none of these, an nnx module instead of a factory of such, or a linen class that
            takes more than its initializers; the error speaks of the argument `model` of `where`.

    Example:
        >>> import jax, jax.numpy as jnp, flax.linen as nn
        >>> from jaxinit.models import adapt
        >>> model = adapt(nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)]))
        >>> params, _ = model.init(jax.nn.initializers.zeros, jax.random.key(0), jnp.ones((1, 4)))
        >>> float(params["layers_0"]["kernel"].sum())
        0.0
    """
    from jaxinit.models import _linen, _nnx

    if isinstance(model, Model):
        return model
    if isinstance(model, nn.Module):
        return _linen.of_module(model)
    if isinstance(model, nnx.Module):
        raise checks.wrong_type(
            where, "model", "a factory `rngs -> nnx.Module`, so that every seed has parameters of its own",
            type(model).__name__, "Pass `lambda rngs: MyModule(..., rngs=rngs)`.",
        )  # fmt: skip
    if not callable(model):
        raise checks.wrong_type(where, "model", "a model", model, _WAY_OUT)
    takes = _parameters(model)
    if inspect.isclass(model) and issubclass(model, nn.Module):
        needed = [name for name, required in takes.items() if required and name != "kernel_init"]
        if needed:
            way_out = f"Make one: {model.__name__}({', '.join(f'{name}=...' for name in needed)})."
            raise checks.wrong_type(where, "model", "a linen module, not its class", model.__name__, way_out)
    if "rngs" in takes:
        return _nnx.from_factory(model, takes_initializer="kernel_init" in takes)
    if "kernel_init" in takes:
        return _linen.from_factory(model, lambda initializer: model(kernel_init=initializer))
    if len(required := [name for name, needed in takes.items() if needed]) == 1:
        return _linen.from_factory(model, lambda initializer: model(initializer))
    found = "no argument" if not required else f"the arguments {', '.join(required)}"
    raise checks.wrong_type(
        where,
        "model",
        f"a factory that takes `kernel_init` or `rngs`, but it takes {found}",
        model,
        _WAY_OUT,
    )


def _parameters(model: Callable[..., Any]) -> dict[str, bool]:
    """The named arguments of a callable, and whether each must be given."""
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    made = model.__init__ if inspect.isclass(model) else model  # nnx's metaclass hides the arguments
    try:
        signature = inspect.signature(made)
    except (TypeError, ValueError):
        return {}
    parameters = list(signature.parameters.items())
    return {
        name: parameter.default is inspect.Parameter.empty
        for name, parameter in (parameters[1:] if inspect.isclass(model) else parameters)
        if parameter.kind in kinds
    }
