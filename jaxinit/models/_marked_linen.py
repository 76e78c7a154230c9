"""Linen modules whose calls are marked: by an interceptor, while the model is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import core as flax_core
from flax import linen as nn
from flax import nnx

from jaxinit.models._changes import changed
from jaxinit.models._linen import _TRAINING_FLAGS, _flags
from jaxinit.models._marked import Marked, untold, whole
from jaxinit.models._marks import Path, calling, marked_call


def of(module: nn.Module, train: bool, method: Any, streams: dict[str, Any]) -> Marked:
    """A linen module; every stream of random numbers it asks for follows from the key."""
    flags, name = _flags(module, train) if method is None else {}, type(module).__name__
    changes: list[str] = []

    def init(key: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            drawn = module.init({"params": key, **streams}, *args, method=method, **flags)
        variables = dict(nn.unbox(drawn))
        params = variables.pop("params", {})
        variables.pop("intermediates", None)
        return params, variables

    def apply(params: Any, state: Any, args: tuple[Any, ...], key: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"), nn.intercept_methods(interceptor()):
            updated: Any = {}

            def call(*args: Any) -> Any:
                out, state_after = module.apply(
                    {"params": params, **state},
                    *args,
                    rngs={"params": key, **streams},
                    mutable=flax_core.DenyList("params"),
                    method=method,
                    **flags,
                )
                updated.update(state_after)
                return out

            # `__call__` is marked by the interceptor; another method is the model's call here.
            out = call(*args) if method is None else marked_call(call, args, {}, (), name, whole)
        changes[:] = changed(name, _abstract(state), _abstract(updated))
        return out

    return Marked(
        name, init, apply, changes=changes, untold=_untold(name, method) if train and not flags else ""
    )


def _untold(name: str, method: Any) -> str:
    """The sentence on a module that has no flag, or a method that is not looked at for one."""
    if method is not None:
        way_out = "and tell the method: method=lambda module, *args: module.encode(*args, train=True), say."
        return untold(name, "as only __call__ is told", way_out)
    known = ", ".join(map(repr, _TRAINING_FLAGS))
    way_out = "or give it one, and hand that on to dropout and batch norm."
    return untold(name, f"whose __call__ has none of the arguments {known}", way_out)


def _abstract(variables: Any) -> dict[str, tuple[Any, Any]]:
    """Shape and dtype of each variable, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(variables))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): (v.shape, v.dtype) for path, v in leaves}


def interceptor(prefix: Path = ()) -> Callable[..., Any]:
    """Marks each `__call__`; `prefix` is the path of the model inside another."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        path = prefix + tuple(context.module.path)
        if context.method_name != "__call__" or calling() == path:  # `super().__call__`
            return call(*args, **kwargs)
        if isinstance(context.module, nnx.bridge.ToLinen):
            kwargs = {**kwargs, "nnx_method": _marked_method(path, kwargs.get("nnx_method"))}
        return marked_call(call, args, kwargs, path, type(context.module).__name__, whole)

    return intercept


def _marked_method(path: Path, method: Any) -> Callable[..., Any]:
    """What a bridge to nnx calls of its module: that method, with the parts of the module marked."""
    from jaxinit.models._marked_nnx import marking

    def call(module: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        with marking(module, path):
            if method is None:
                return module(*args, **kwargs)
            return (getattr(type(module), method) if isinstance(method, str) else method)(
                module, *args, **kwargs
            )

    return call
