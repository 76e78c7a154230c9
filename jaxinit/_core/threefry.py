"""The same random bits as `jax.random`, in one fused loop: no memory beside the result, and less time on CPUs.

JAX's threefry generator keeps its state in arrays of the size of the draw (on CPUs: four words an entry), because
its rounds are a loop over arrays. Written out entry by entry the rounds fuse with what follows them, so a draw needs
no memory but its result, on every backend and for every shard. Only the place of the bits changes, not their values:
entry i of a draw is the cipher of the counter i, as in `jax.random` with `jax_threefry_partitionable`.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NoReturn

import jax
import jax.extend
import jax.numpy as jnp

__all__ = ["cipher", "fold_in", "fused", "split", "words"]

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
NAME = "threefry2x32"


def cipher(key: tuple[Any, Any], x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011) of counters (x, y), entry by entry; all uint32."""
    k0, k1 = key
    schedule = (k0, k1, k0 ^ k1 ^ jnp.uint32(PARITY))
    x, y = x + k0, y + k1
    for block in range(5):
        for r in ROTATIONS[block % 2]:
            x = x + y
            y = x ^ ((y << jnp.uint32(r)) | (y >> jnp.uint32(32 - r)))
        x = x + schedule[(block + 1) % 3]
        y = y + schedule[(block + 2) % 3] + jnp.uint32(block + 1)
    return x, y


def words(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The cipher of the counters 0, 1, 2, ..., laid out as `shape`: two uint32 arrays.

    `key`: the data of a key, uint32[2].
    """
    counter = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return cipher((key[0], key[1]), jnp.zeros_like(counter), counter)


def split(key: Any, shape: tuple[int, ...]) -> Any:
    """`jax.random.split` of a typed threefry key, as one loop instead of many: a third of what it is to compile."""
    if not getattr(jax.config, "jax_threefry_partitionable", True):
        return jax.random.split(key, shape)
    return jax.random.wrap_key_data(jnp.stack(words(jax.random.key_data(key), shape), axis=-1), impl=NAME)


def fold_in(key: Any, number: jax.Array) -> Any:
    """`jax.random.fold_in` of typed threefry keys, entry by entry: a few operations, where JAX compiles a loop."""
    data = jax.random.key_data(key)
    words = cipher((data[..., 0], data[..., 1]), jnp.zeros_like(number), number)
    return jax.random.wrap_key_data(jnp.stack(words, axis=-1), impl=NAME)


def _bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    """The bits that `jax.random` draws."""
    x, y = words(key, shape)
    if bit_width == 64:
        return (x.astype(jnp.uint64) << jnp.uint64(32)) | y.astype(jnp.uint64)
    return (x ^ y).astype(f"uint{bit_width}")


def _refuse(*_: Any) -> NoReturn:
    raise NotImplementedError("these keys only draw: derive new ones from the key they were made of")


@functools.cache
def _implementation() -> Any:
    return jax.extend.random.define_prng_impl(
        key_shape=(2,), seed=_refuse, split=_refuse, fold_in=_refuse, random_bits=_bits,
        name="threefry2x32_fused", tag="3fryf",
    )  # fmt: skip


def fused(key: Any, shape: tuple[int, ...]) -> Any:
    """A key with which one draw of `jax.random` gives the bits of `key`, fused; `key` itself where that cannot be.

    It can be for threefry keys, raw or typed, under JAX's default `jax_threefry_partitionable`, and for fewer than
    2^32 entries.
    """
    if not getattr(jax.config, "jax_threefry_partitionable", True) or math.prod(shape) >= 2**32:
        return key
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if str(jax.random.key_impl(key)) != NAME:
            return key
        data = jax.random.key_data(key)
    else:
        if getattr(jax.config, "jax_default_prng_impl", NAME) != NAME or key.shape != (2,):
            return key
        data = jnp.asarray(key)
    return jax.random.wrap_key_data(data, impl=_implementation())
