"""How many programs the ensemble has compiled."""

from __future__ import annotations

from typing import get_args

from jaxinit._core.compiling import Kind
from jaxinit.ensemble import _compiled

KINDS = (None, *get_args(get_args(Kind)[0]))


def chunks() -> int:
    """Programs of chunks on a CPU, whatever their kind: a test counts them before and after."""
    return sum(_compiled._jitted(_compiled.chunk, "cpu", kind)._cache_size() for kind in KINDS)
