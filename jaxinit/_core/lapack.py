"""Factorizations that may be batched: on CPU one matrix after the other.

jaxlib's LAPACK kernels share a batch out to the thread pool that they run on, and wait there: a program with as many
batched calls at once as the pool has threads (two on a small machine) never ends. One matrix alone is done at
once, so what is batched on CPU is a loop; elsewhere it stays a batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

#: A kernel's call in a lowered program, of an operand with a leading axis.
_BATCHED = re.compile(r"@lapack_\w+.*: \(tensor<(?!1x\d+x\d+x[a-z])\d+x\d+x\d+x")


def _looped(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """`function` of one matrix, for any number of leading axes."""
    plain = function

    @jax.custom_batching.custom_vmap
    def one(a: jax.Array) -> Any:
        return plain(a)

    @one.def_vmap
    def _(size: int, batched: Any, a: jax.Array) -> Any:
        out = jax.lax.platform_dependent(a, cpu=lambda v: jax.lax.map(one, v), default=jax.vmap(plain))
        return out, jax.tree.map(lambda _: True, out)

    def of(a: jax.Array) -> Any:
        call: Callable[[jax.Array], Any] = one
        for _ in range(a.ndim - 2):
            call = jax.vmap(call)
        return call(a)

    return of


#: Thin QR: a (..., m, n) -> q (..., m, k), r (..., k, n), k = min(m, n). Not for reverse mode.
qr = _looped(lambda a: tuple(jnp.linalg.qr(a)))
#: a = u @ diag(s) @ vt: a (..., m, n) -> u, s, vt, k = min(m, n) of each. Not for reverse mode.
svd = _looped(lambda a: tuple(jnp.linalg.svd(a, full_matrices=False)))


def is_batched(program: str) -> bool:
    """Whether a program lowered for CPU (StableHLO text) factorizes matrices in batches."""
    return _BATCHED.search(program) is not None
