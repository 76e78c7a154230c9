"""Factories of nnx modules as pairs of pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxinit._core import checks
from jaxinit.models._functional import Initializer, Model


def from_factory(factory: Callable[..., Any], takes_initializer: bool) -> Model:
    """A factory `rngs -> module`, or `(kernel_init, rngs) -> module`."""

    def make(initializer: Initializer | None, key: Any) -> nnx.Module:
        given = {} if initializer is None or not takes_initializer else {"kernel_init": initializer}
        module = factory(rngs=nnx.Rngs(key), **given)
        if not isinstance(module, nnx.Module):
            raise checks.wrong_type("adapt", "model", "a factory `rngs -> nnx.Module`", module)
        return module

    key = jax.random.key(0, impl="threefry2x32")
    template = abstract(lambda: make(jax.nn.initializers.zeros if takes_initializer else None, key))
    graphs = {}
    for train in (True, False):
        template.train() if train else template.eval()
        graphs[train] = _split(template)

    def init(initializer: Initializer | None, key: Any, x: Any) -> tuple[Any, Any]:
        module = make(initializer, key)
        _, params, rest = _split(module)
        drawn = nnx.to_pure_dict(params)
        if initializer is not None and not takes_initializer:
            _redraw(module, drawn, initializer, key)
        return drawn, nnx.to_pure_dict(rest)

    def apply(params: Any, state: Any, x: Any, train: bool, key: Any) -> tuple[Any, Any]:
        graph, *holders = graphs[train]
        with jax.numpy_dtype_promotion("standard"):
            module = nnx.merge(graph, *(filled(h, v) for h, v in zip(holders, (params, state), strict=True)))
            output = module(x)
            if not train:
                return output, state
            return output, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))

    name = getattr(factory, "__name__", type(factory).__name__)
    return Model(type(template).__name__ if name == "<lambda>" else name, init, apply)


def _split(module: nnx.Module) -> tuple[Any, Any, Any]:
    """The graph of a module, its parameters, and the rest of its state."""
    graph, *states = nnx.split(_with_arrays(module), nnx.Param, ...)
    params, rest = states
    return graph, params, rest


def _with_arrays(module: nnx.Module) -> nnx.Module:
    """The module, made while tracing, with the arrays that are its attributes and no variables as parts of its state.

    nnx takes arrays for such parts, but tracers for constants.
    """
    for _, part in nnx.iter_graph(module):
        for name, value in list(vars(part).items()) if isinstance(part, nnx.Pytree) else ():
            if isinstance(value, jax.core.Tracer):
                setattr(part, name, nnx.data(value))
    return module


def abstract(make: Callable[[], nnx.Module]) -> nnx.Module:
    """The nnx module that `make` makes, without its numbers.

    Its variables hold shapes, other arrays (a table of positions, a mask) are zeros that take no memory.
    `nnx.eval_shape` leaves tracers and shapes in place of those, and they would be taken for constants.

    Example:
        >>> from flax import nnx
        >>> from jaxinit.models import abstract
        >>> abstract(lambda: nnx.Linear(10**6, 10**6, rngs=nnx.Rngs(0))).kernel.shape
        (1000000, 1000000)
    """
    graphs: list[Any] = []

    def split() -> Any:
        graph, state = nnx.split(_with_arrays(make()))
        graphs.append(graph)
        return state

    def held(leaf: Any) -> Any:
        bare = isinstance(leaf, jax.ShapeDtypeStruct) and isinstance(leaf.dtype, np.dtype)
        return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape) if bare else leaf

    flat = nnx.to_flat_state(jax.eval_shape(split))
    return nnx.merge(graphs[0], nnx.from_flat_state([(path, held(leaf)) for path, leaf in flat]))


def filled(holder: Any, values: Any) -> Any:
    """An nnx state with these values, a pure dict, in place of its own.

    As by `nnx.replace_by_pure_dict`, which takes no names that are tuples (those of nnx.WeightNorm).

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jaxinit.models import filled
        >>> state = nnx.state(nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(0)))
        >>> filled(state, {"kernel": jnp.ones((2, 1))})["kernel"][...].sum().item()
        2.0
    """
    leaves = {tuple(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(holder)}
    for path, value in nnx.traversals.flatten_mapping(values).items():
        name = tuple(map(str, path))
        own, leaf = leaves[name]
        leaves[name] = own, leaf.replace(value) if isinstance(leaf, nnx.Variable) else value
    return nnx.from_flat_state(list(leaves.values()))


def _redraw(module: nnx.Module, params: dict[Any, Any], initializer: Initializer, key: Any) -> None:
    """Draw every kernel of `module` anew, in the pure dict of its parameters.

    Kernel n, in the order of the modules' paths, is drawn with `fold_in(fold_in(key, 1), n)`, in the shape
    (fan-in, fan-out) that its layer gives to its own initializer; stacked layers are drawn one by one.
    """
    owners = [
        (p, m) for p, m in nnx.iter_modules(module) if isinstance(getattr(m, "kernel", None), nnx.Param)
    ]
    for n, (path, owner) in enumerate(sorted(owners, key=lambda pair: [str(part) for part in pair[0]])):
        place = params
        for part in path:
            place = place[part]
        kernel = place["kernel"]
        stack, drawn = _drawn_shape(owner, kernel.shape)
        layer_key = jax.random.fold_in(jax.random.fold_in(key, 1), n)
        keys = jax.random.split(layer_key, math.prod(stack)) if stack else layer_key[None]
        layers = [initializer(k, drawn, kernel.dtype) for k in keys]
        place["kernel"] = jnp.reshape(jnp.stack(layers) if stack else layers[0], kernel.shape)


def _drawn_shape(owner: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The leading axes along which layers are stacked, and the shape one layer hands to its initializer."""
    if isinstance(owner, nnx.LinearGeneral):
        inner, outer = _sizes(owner.in_features), _sizes(owner.out_features)
        return shape[: len(shape) - len(inner) - len(outer)], (math.prod(inner), math.prod(outer))
    if isinstance(owner, nnx.Linear):
        own = 2
    elif isinstance(owner, (nnx.Conv, nnx.ConvTranspose)):
        own = 2 + (1 if isinstance(owner.kernel_size, int) else len(owner.kernel_size))
    else:
        own = len(shape)
    return shape[: len(shape) - own], shape[len(shape) - own :]


def _sizes(features: Any) -> tuple[int, ...]:
    return (features,) if isinstance(features, int) else tuple(features)
