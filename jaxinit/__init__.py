"""jaxinit: will this network's signal survive initialization, and which initializer should I use?

Describe a network (`Network`), simulate it exactly (`simulate`), measure a real one, and prove the difference
by training (`compare`). Names are loaded on first use, so `import jaxinit` and `jaxinit --help` are instant.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxinit import implicit as implicit
    from jaxinit.network import Network as Network
    from jaxinit.records import Propagation as Propagation
    from jaxinit.records import Statistic as Statistic
    from jaxinit.records import load as load
    from jaxinit.simulate import simulate as simulate

#: Public name -> the area that defines it (tests hold this table to the imports above).
_AREA = {
    "Network": "network",
    "Propagation": "records",
    "Statistic": "records",
    "load": "records",
    "simulate": "simulate",
}
#: Areas that are themselves public names.
_AREAS = ("implicit",)

__all__ = [*_AREA, *_AREAS]


def __getattr__(name: str) -> Any:
    if name in _AREA:
        value = getattr(importlib.import_module(f"jaxinit.{_AREA[name]}"), name)
    elif name in _AREAS:
        value = importlib.import_module(f"jaxinit.{name}")
    else:
        raise AttributeError(f"module 'jaxinit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Face(types.ModuleType):
    """The package, in which a function that shares its name with its area (`simulate`) wins over the area."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _AREA and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
