"""What our programs ask of XLA's compiler where it is slow, or wastes the machine: on a CPU.

There it emits loops in two ways, of which the older compiles in less time and runs no slower. Beside it, by kind of
program:

    loops    time goes into long loops over entries: vectors as wide as the machine has them, which XLA does not ask
             for. Up to a quarter less time a network.
    brief    time goes into products and convolutions, which are not compiled here, or the program runs a few times:
             LLVM's second level instead of its third. Half the first call of a convolutional network, for about 5 % of
             its speed; long loops would lose a fifth of theirs.

`experiments/bench/compiling.py` measures every kind on every network.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Literal

import jax
import jax.numpy as jnp

__all__ = ["Kind", "options"]

Kind = Literal["loops", "brief"] | None

_ALWAYS: dict[str, dict[str, Any]] = {"cpu": {"xla_cpu_use_fusion_emitters": False}}
_OF_KIND: dict[tuple[str, Kind], dict[str, Any]] = {
    ("cpu", "loops"): {"xla_cpu_prefer_vector_width": 512},
    ("cpu", "brief"): {"xla_backend_optimization_level": 2},
}


@functools.cache
def options(platform: str, kind: Kind = None) -> dict[str, Any]:
    """Of the compiler, for programs of a kind there: those that it knows, and that XLA_FLAGS does not set."""
    told = os.environ.get("XLA_FLAGS", "")
    wanted = _ALWAYS.get(platform, {}) | _OF_KIND.get((platform, kind), {})
    return {
        name: value for name, value in wanted.items() if name not in told and _is_known(platform, name, value)
    }


@functools.cache
def _is_known(platform: str, name: str, value: Any) -> bool:
    """Whether the compiler takes an option, which only compiling tells: it refuses those of other versions."""
    with jax.default_device(jax.local_devices(backend=platform)[0]):
        lowered = jax.jit(lambda: jnp.zeros((), jnp.int32)).lower()
    try:
        lowered.compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True
