"""The compiled programs of a run: chunks of seeds on every device, at once or seed by seed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxinit._core import checks, compiling, scaled
from jaxinit._core.threefry import NAME, fold_in
from jaxinit.ensemble._chunk import counted
from jaxinit.ensemble._devices import AXIS


def keys_of(seeds: Any, root: Any) -> jax.Array:
    """The keys that name the networks: seed i is fold_in(root key, i), whatever chunk or device it runs on."""
    if not isinstance(seeds, jax.Array):
        seeds = checks.seeds("keys_of", "seeds", seeds)
    if not isinstance(root, jax.Array):
        root = checks.integer("keys_of", "root", root)
    return jax.vmap(lambda i: _key(i, root))(jnp.asarray(seeds, jnp.uint32))


def _key(seed: jax.Array, root: Any) -> jax.Array:
    return fold_in(jax.random.key(root, impl=NAME), seed)


#: Arguments that are a part of the program.
_STATIC = {"chunk": ("one", "batch", "keep", "mesh"), "seed": ("one", "mesh"), "joined": ("keep", "mesh")}


def jitted(function: Callable[..., Any], platform: str, one: Any = None) -> Any:
    """`chunk`, `seed` or `joined`, compiled as programs of `one` are for that kind of device."""
    return _jitted(function, platform, kind(one))


@functools.cache
def _jitted(function: Callable[..., Any], platform: str, kind: compiling.Kind) -> Any:
    static = _STATIC[function.__name__]
    options = compiling.options(platform, kind)
    return jax.jit(function, static_argnames=static, compiler_options=options or None)


def kind(one: Any) -> compiling.Kind:
    """What kind of program `one` says it is."""
    return getattr(one, "compiled_for", None)


def chunk(
    seeds: jax.Array, root: jax.Array, data: Any, one: Any, batch: int, keep: bool,
    counts: jax.Array | None = None, mesh: Mesh | None = None,
) -> Any:  # fmt: skip
    """The chunks of a round, one a device: moments and samples, whose leading axis counts the devices."""
    counts = jnp.full((1,), seeds.shape[0], jnp.int32) if counts is None else counts

    def of_device(seeds: jax.Array, counts: jax.Array, root: jax.Array, data: Any) -> Any:
        if batch >= len(seeds) and not keep and hasattr(one, "moments"):
            return _lead((one.moments(keys_of(seeds, root), counts[0], data), None))
        samples = _samples(one, batch, seeds, root, data)
        return _lead((_figures(samples, counts), samples if keep else None))

    return _on_devices(of_device, mesh, 2)(seeds, counts, root, data)


def seed_by_seed(
    seeds: np.ndarray, root: Any, data: Any, one: Any, keep: bool, counts: np.ndarray, mesh: Mesh | None,
    platform: str,
) -> Any:  # fmt: skip
    """What `chunk` returns, each seed by a call of its own.

    XLA's CPU compiler runs convolutions and products that a loop or a batch of weights holds several times slower
    than those of one network.
    """
    columns = seeds.reshape((len(counts), -1)).T
    found: list[Any] = []
    for column in columns:
        found.append(jitted(seed, platform, one)(column, root, data, one, mesh))
        if len(found) > AT_WORK:
            jax.block_until_ready(found[-AT_WORK - 1])
    return jitted(joined, platform)(tuple(found), counts, keep, mesh)


#: Seeds at work at the same time where each is a call of its own: while one computes, the next is dispatched.
AT_WORK = 2


def seed(seeds: jax.Array, root: jax.Array, data: Any, one: Any, mesh: Mesh | None = None) -> Any:
    """The samples of one seed on each device; the leading axis counts the devices."""

    def of_device(seeds: jax.Array, root: jax.Array, data: Any) -> Any:
        return _lead(one(_key(seeds[0], root), data))

    return _on_devices(of_device, mesh, 1)(seeds, root, data)


def joined(found: tuple[Any, ...], counts: jax.Array, keep: bool, mesh: Mesh | None) -> Any:
    def of_device(found: tuple[Any, ...], counts: jax.Array) -> Any:
        samples = jax.tree.map(lambda *values: jnp.concatenate(values), *found)
        return _lead((_figures(samples, counts), samples if keep else None))

    return _on_devices(of_device, mesh, 2)(found, counts)


def _on_devices(program: Any, mesh: Mesh | None, sharded: int) -> Any:
    """The program on every device, which has its part of the first arguments; the rest is the same for all."""
    if mesh is None:
        return program

    def run(*arguments: Any) -> Any:
        own, same = PartitionSpec(AXIS), PartitionSpec()
        specs = (*[own] * sharded, *[same] * (len(arguments) - sharded))
        return jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)(*arguments)

    return run


def _samples(one: Any, batch: int, seeds: jax.Array, root: jax.Array, data: Any) -> Any:
    size = seeds.shape[0]
    if batch >= size:
        return jax.vmap(lambda key: one(key, data))(keys_of(seeds, root))
    # A ragged last batch is filled up and cut off again: one body to compile instead of two.
    filling = jnp.broadcast_to(seeds[-1:], (-size % batch,))
    keys = keys_of(jnp.concatenate([seeds, filling]), root)
    samples = jax.lax.map(lambda key: one(key, data), keys, batch_size=batch if batch > 1 else None)
    return jax.tree.map(lambda v: v[:size], samples)


def _figures(samples: Any, counts: jax.Array) -> Any:
    return scaled.reduce_all(counted(samples, counts[0]))


def _lead(values: Any) -> Any:
    return jax.tree.map(lambda v: v[None], values)
