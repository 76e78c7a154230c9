"""Many seeds through one compiled program: chunks on the host, batches on the device, moments merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import scaled
from jaxinit._core.moments import Moments

#: Called after each chunk with (seeds done, seeds in all).
Progress = Callable[[int, int], Any]


def keys_of(seeds: Any, root: Any) -> jax.Array:
    """The keys that name the networks: seed i is fold_in(root key, i), whatever chunk or device it runs on."""
    key = jax.random.key(root, impl="threefry2x32")
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(seeds, jnp.uint32))


@partial(jax.jit, static_argnames=("one", "batch", "keep"))
def _chunk(seeds: jax.Array, root: jax.Array, data: Any, one: Any, batch: int, keep: bool) -> Any:
    # A ragged last batch is filled up and cut off again: one body to compile instead of two.
    count = seeds.shape[0]
    full = -(-count // batch) * batch
    keys = keys_of(jnp.concatenate([seeds, jnp.broadcast_to(seeds[-1:], (full - count,))]), root)
    samples = jax.lax.map(lambda key: one(key, data), keys, batch_size=batch if batch > 1 else None)
    samples = jax.tree.map(lambda v: v[:count], samples)
    return scaled.reduce_all(samples), (samples if keep else None)


def _samples_to_host(value: Any) -> np.ndarray:
    if isinstance(value, scaled.Scaled):
        mantissa, exponent = np.asarray(value.mantissa, np.float64), np.asarray(value.exponent)
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            if value.log:
                return np.log(mantissa) + exponent * np.log(2.0)
            return np.ldexp(mantissa, exponent)
    return np.asarray(value)


def run(
    one: Callable[[jax.Array, Any], dict[str, Any]],
    data: Any,
    seeds: np.ndarray,
    *,
    root: int = 0,
    batch: int = 1,
    chunk: int | None = None,
    keep: bool = False,
    progress: bool | Progress = False,
) -> tuple[dict[str, Moments], dict[str, np.ndarray] | None]:
    """Moments over seeds of every value that `one(key, data)` returns.

    Arguments:
        one: `(key, data) -> dict of arrays or Scaled`, traceable and hashable (a function of a module, or a
            record): programs are cached by it.
        data: pytree of numbers; changing them does not recompile.
        seeds: 1-D uint32; seed i is the key fold_in(key(root), i).
        batch: seeds computed together (vectorised) within a chunk.
        chunk: seeds a compiled call; the host merges chunks and reports progress between them.
        keep: also return the samples, seeds first.
        progress: True for a bar on stderr, or a function of (done, total).

    Returns:
        Moments by name, and the samples by name (None unless `keep`).

    The last chunk is as long as the rest allows: a ragged rest costs one more compilation.
    """
    total = len(seeds)
    size = total if chunk is None else min(chunk, total)
    moments: dict[str, Moments] | None = None
    kept: list[dict[str, np.ndarray]] = []
    with _reporter(progress) as report:
        for start in range(0, total, size):
            part = seeds[start : start + size]
            figures, samples = _chunk(
                jnp.asarray(part), jnp.asarray(root, jnp.uint32), data, one, min(batch, len(part)), keep
            )
            host = figures.host()
            moments = host if moments is None else {k: moments[k].merge(v) for k, v in host.items()}
            if samples is not None:
                kept.append({name: _samples_to_host(value) for name, value in samples.items()})
            report(start + len(part), total)
    assert moments is not None
    stacked = {name: np.concatenate([k[name] for k in kept]) for name in kept[0]} if kept else None
    return moments, stacked


@contextmanager
def _reporter(progress: bool | Progress) -> Iterator[Progress]:
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        from rich.console import Console
        from rich.progress import Progress as Bar
        from rich.progress import TimeRemainingColumn

        with Bar(*Bar.get_default_columns()[:3], TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task("seeds", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
