"""nnx modules whose calls are marked: their classes' `__call__` is wrapped while the model is traced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import jax
from flax import linen as nn
from flax import nnx

from jaxinit._core import checks
from jaxinit.models._changes import MadeLate, attributes_of, changed, reassigned, variables_of
from jaxinit.models._functional import _parameters
from jaxinit.models._marked import Marked, check_method, untold, whole
from jaxinit.models._marked_linen import interceptor
from jaxinit.models._marks import Path, calling, marked_call
from jaxinit.models._nnx import _split, abstract, filled

#: A module carries its path as a static attribute, which survives nnx's transforms; attributes of the bridge to
#: linen would be taken for variables, but for those of this name.
_TAG, _BRIDGE_TAG = "_jaxinit_path", "to_nnx__jaxinit_path"

_CALL = "__call__"

# Classes are shared by all threads: one model is traced at a time, and other threads' calls pass through.
_lock = threading.RLock()


def of_factory(factory: Callable[..., Any], train: bool, method: Any, where: str) -> Marked:
    """A factory `rngs -> module`."""
    by_name = "rngs" in _parameters(factory)

    def make(key: Any) -> nnx.Module:
        rngs = nnx.Rngs(key)
        with jax.numpy_dtype_promotion("standard"):
            try:
                module = factory(rngs=rngs) if by_name else factory(rngs)
            except Exception as error:
                first = (str(error).strip("'\" \n").splitlines() or [""])[0].rstrip(".")
                words = f"It failed with {type(error).__name__}: {first}. `rngs` has every stream; hand it on as it is."
                rule = "a factory that makes an nnx.Module of `rngs`"
                raise checks.bad(
                    where, "model", rule, getattr(factory, "__name__", factory), words
                ) from error
        if not isinstance(module, nnx.Module):
            raise checks.wrong_type(where, "model", "a factory `rngs -> nnx.Module`", module)
        _set_mode(module, train)
        return module

    template = abstract(lambda: make(jax.random.key(0, impl="threefry2x32")))
    name = getattr(factory, "__name__", "<lambda>")
    name = type(template).__name__ if name == "<lambda>" else name
    check_method(where, type(template), method)
    deaf = _untold(name, template) if train else ""

    def init(key: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
        _, params, rest = _split(make(key))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    changes: list[str] = []
    apply = _apply(template, method, changes)
    return Marked(name, init, apply, changes=changes, untold=deaf)


def of_instance(module: nnx.Module, train: bool, method: Any, where: str) -> Marked:
    """A module that has been made: one draw."""
    check_method(where, type(module), method)
    graph, params, rest = _split(module)
    template = nnx.merge(graph, params, rest, copy=True)
    name = type(module).__name__
    deaf = _untold(name, template) if train else ""
    _set_mode(template, train)
    _, params, rest = _split(template)
    given = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    changes: list[str] = []
    apply = _apply(template, method, changes)
    return Marked(name, lambda key, args: given, apply, given, changes=changes, untold=deaf)


def _set_mode(module: nnx.Module, train: bool) -> None:
    module.train() if train else module.eval()


def _untold(name: str, module: nnx.Module) -> str:
    """A sentence where train() and eval() leave a module's attributes the same; it is left in training."""
    modes = []
    for train in (False, True):
        _set_mode(module, train)
        modes.append(attributes_of(module))
    if reassigned(name, *modes):
        return ""
    way_out = (
        "and set arguments of a call yourself: method=lambda module, *args: module(*args, train=True), say."
    )
    return untold(name, "whose train() sets no attribute", way_out)


def _apply(template: nnx.Module, method: Any, changes: list[str]) -> Callable[..., Any]:
    graph, *holders = _split(template)
    name = type(template).__name__

    def apply(params: Any, state: Any, args: tuple[Any, ...], key: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            parts = (filled(h, v) for h, v in zip(holders, (params, state), strict=True))
            module = nnx.merge(graph, *parts, copy=True)
            before, attributes = variables_of(module), attributes_of(module)
            made = {path for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param))}
            with marking(module):
                if method is None:
                    out = module(*args)
                else:
                    called = getattr(module, method) if isinstance(method, str) else partial(method, module)
                    out = marked_call(called, args, {}, (), name, whole)
            late = {path for path, _ in nnx.to_flat_state(nnx.state(module, nnx.Param))} - made
            if late:
                raise MadeLate(", ".join(sorted("/".join(map(str, path)) for path in late)))
            changes[:] = [
                *changed(name, before, variables_of(module)),
                *reassigned(name, attributes, attributes_of(module)),
            ]
            return out

    return apply


@contextmanager
def marking(module: nnx.Module, prefix: Path = ()) -> Iterator[None]:
    """Within, calls of the modules inside `module` are marked; their classes are as before afterwards. `prefix` is the
    path of the module inside another."""
    classes: dict[type, Any] = {}
    for path, part in nnx.iter_modules(module):
        if callable(part):  # another, such as nnx.Dict, would show the tag to who goes through its items
            bridge = isinstance(part, nnx.bridge.ToNNX)
            setattr(part, _BRIDGE_TAG if bridge else _TAG, "/".join((*prefix, *map(str, path))))
            classes[type(part)] = type(part).__dict__.get(_CALL)
    with _lock:
        # Every class is wrapped around what it has now, before any other class is changed.
        wrapped = {cls: _wrapped(getattr(cls, _CALL), threading.get_ident()) for cls in classes}
        try:
            for cls, call in wrapped.items():
                setattr(cls, _CALL, call)
            yield
        finally:
            for cls, own in classes.items():
                if own is None:
                    delattr(cls, _CALL)
                else:
                    setattr(cls, _CALL, own)


def _wrapped(call: Callable[..., Any], thread: int) -> Callable[..., Any]:
    @wraps(call)
    def marked(self: Any, *args: Any, **kwargs: Any) -> Any:
        tag = getattr(self, _TAG, getattr(self, _BRIDGE_TAG, None))
        if tag is None or threading.get_ident() != thread:
            return call(self, *args, **kwargs)
        path: Path = tuple(tag.split("/")) if tag else ()
        if calling() == path:  # `super().__call__`
            return call(self, *args, **kwargs)
        bound = partial(call, self)
        kind = type(self).__name__
        if isinstance(self, nnx.bridge.ToNNX):
            with nn.intercept_methods(interceptor(path)):
                return bound(*args, **kwargs)
        return marked_call(bound, args, kwargs, path, kind, whole)

    return marked
