"""Marks: identity equations that say, inside a traced program, where a module begins and ends.

A mark is an equation like any other, so it stays where the module's value is computed: inside the bodies of
scan, remat, cond and jit. It does nothing; whoever reads the program (`jaxinit.probe`) finds it there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.interpreters import ad, batching, mlir

__all__ = ["MARK", "Path", "calling", "marked_call"]

#: Path of a module, outermost first; () is the model itself.
Path = tuple[str, ...]

#: x -> x, with the parameters path (of the module), kind (its class), role ("input" or "output") and leaf (which
#: leaf of the arguments or results, "" for the only one).
MARK = core.Primitive("jaxinit_mark")
MARK.def_impl(lambda x, **_: x)
MARK.def_abstract_eval(lambda x, **_: x)
mlir.register_lowering(MARK, lambda ctx, x, **_: [x])
batching.primitive_batchers[MARK] = lambda args, dims, **what: (MARK.bind(*args, **what), dims[0])
# Derivatives that the model itself takes pass through unmarked: a mark speaks of the value.
ad.primitive_jvps[MARK] = lambda primals, tangents, **what: (MARK.bind(*primals, **what), tangents[0])

# jit caches what it traced; a program traced with marks must not serve a call without, nor another module.
_cached_for = jax.make_user_context(None)


class _Calls(threading.local):
    """The modules that are being called in this thread, outermost first."""

    def __init__(self) -> None:
        self.paths: list[Path] = []


_calls = _Calls()


def calling() -> Path | None:
    """The module whose call is being traced now, if any."""
    return _calls.paths[-1] if _calls.paths else None


@contextmanager
def _inside(path: Path) -> Iterator[None]:
    _calls.paths.append(path)
    try:
        with _cached_for(("jaxinit", path)):
            yield
    finally:
        _calls.paths.pop()


def marked_call(
    call: Callable[..., Any], args: Any, kwargs: Any, path: Path, kind: str, whole: Callable[[Any], bool]
) -> Any:
    """`call(*args, **kwargs)` of the module at `path`, with its arguments and results marked.

    `whole(node)` says which nodes of the trees are not to be looked into (modules, variables).
    """
    args, kwargs = _mark((args, kwargs), path, kind, "input", whole)
    with _inside(path):
        out = call(*args, **kwargs)
    return _mark(out, path, kind, "output", whole)


def _mark(tree: Any, path: Path, kind: str, role: str, whole: Callable[[Any], bool]) -> Any:
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=whole)
    arrays = {id(leaf) for _, leaf in leaves if _is_array(leaf)}
    done: dict[int, Any] = {}  # a value returned twice is one value: marked twice, each mark would see a part
    out = []
    for where, leaf in leaves:
        if _is_array(leaf) and id(leaf) not in done:
            name = "" if len(arrays) == 1 else ".".join(_part(k) for k in where)
            done[id(leaf)] = MARK.bind(leaf, path=path, kind=kind, role=role, leaf=name)
        out.append(done.get(id(leaf), leaf))
    return jax.tree_util.tree_unflatten(structure, out)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray)) and not jax.dtypes.issubdtype(
        leaf.dtype, jax.dtypes.extended
    )


def _part(key: Any) -> str:
    for name in ("key", "idx", "name"):
        if hasattr(key, name):
            return str(getattr(key, name))
    return str(key)
