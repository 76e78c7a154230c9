"""What a model changes in itself while it is called, beyond the values of its variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

__all__ = ["MadeLate", "attributes_of", "changed", "reassigned", "variables_of"]

#: What Python code counts and remembers by.
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_ABSENT = object()
#: Attributes of nnx's own, and the end of those by which modules are marked.
_OTHERS, _TAG = ("_pytree__", "_object__"), "_jaxinit_path"


class MadeLate(Exception):
    """Parameters, by their names, that a module has only once it was called: there is no draw of them."""


def variables_of(module: nnx.Module) -> dict[str, tuple[Any, Any]]:
    """Shape and dtype of each variable of an nnx module, by its path."""
    return {
        "/".join(map(str, path)): (leaf.shape, leaf.dtype)
        for path, leaf in nnx.to_flat_state(nnx.state(module))
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    }


def attributes_of(module: nnx.Module) -> dict[str, Any]:
    """Attributes of an nnx module and its parts that are no variables: numbers, texts and arrays, by their path."""
    return dict(_attributes(module))


def _attributes(module: nnx.Module) -> Iterator[tuple[str, Any]]:
    for path, part in nnx.iter_modules(module):
        for name, value in vars(part).items():
            kept = isinstance(value, (*_PLAIN, jax.Array, np.ndarray)) and not isinstance(value, nnx.Variable)
            if kept and not name.startswith(_OTHERS) and not name.endswith(_TAG):
                yield "/".join((*map(str, path), name)), value


def changed(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A sentence for each variable that has another shape or dtype than before the call."""
    return [
        f"{name} changes its variable {path} from {_described(*before[path])} to {_described(*after[path])}: a "
        "compiled program, and a loop over steps, needs it to stay as it is. Make it as large as it gets, and cast "
        "what is written."
        for path in before
        if path in after and before[path] != after[path]
    ]


def reassigned(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A sentence for each attribute that is no variable and was assigned to."""
    out = []
    for path, value in after.items():
        old = before.get(path, _ABSENT)
        if old is value or (isinstance(value, _PLAIN) and type(old) is type(value) and old == value):
            continue
        what = (
            ""
            if isinstance(value, (jax.Array, np.ndarray)) or old is _ABSENT
            else f" ({old!r} becomes {value!r})"
        )
        out.append(
            f"{name} assigns to its attribute {path} when it is called{what}: that happens while it is traced, and a "
            "compiled program does not do it again. Keep it in a variable, such as nnx.Variable(jnp.zeros(())), or "
            "self.sow(nnx.Intermediate, name, value)."
        )
    return out


def _described(shape: Any, dtype: Any) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"
