"""Chi-square and binomial draws of many degrees of freedom, for whole blocks of networks and layers at once."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.normals import normals
from jaxinit._core.threefry import words


def coins(key: Any, shape: tuple[int, int], n: int) -> jax.Array:
    """Binomial(n, 1/2), float32: by its distribution function, whose steps are rounded to 2^-32."""
    first, steps = _binomial_steps(n)
    word, _ = words(jax.random.key_data(key), shape)
    found = jnp.searchsorted(jnp.asarray(steps), word.ravel(), side="right").reshape(shape)
    return (found + first).astype(jnp.float32)


def _binomial_steps(n: int) -> tuple[int, np.ndarray]:
    """The least value of more than 2^-34 chance, and 2^32 times the distribution function from there on."""
    k = np.arange(n + 1, dtype=np.float64)
    log = np.concatenate([[0.0], np.cumsum(np.log((n - k[:-1]) / (k[:-1] + 1)))]) - n * math.log(2.0)
    chance = np.exp(log)
    likely = np.flatnonzero(chance > 2.0**-34)
    chance = chance[likely[0] : likely[-1] + 1]
    steps = np.round(np.cumsum(chance / chance.sum())[:-1] * 2.0**32)
    return int(likely[0]), np.minimum(steps, 2.0**32 - 1).astype(np.uint32)


def chi_square(key: Any, freedom: jax.Array) -> jax.Array:
    """Chi-square of `freedom` (rows, n) degrees of freedom, any numbers of at least 0; 0 where they are 0.

    Twice a gamma variable of half as many, by rejection (Marsaglia & Tsang 2000, "A simple method for generating
    gamma variables"): all entries are drawn again until the last is accepted, and each keeps its first. Below two
    degrees of freedom those of two more are multiplied by U^(2 / freedom).
    """
    rows, n = freedom.shape
    boosted = freedom < 2
    shape = jnp.where(boosted, freedom + 2, freedom) / 2
    d = shape - 1 / 3
    c = 1 / jnp.sqrt(9 * d)

    def draw(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        turn, value, accepted = state
        own = jax.random.fold_in(key, turn)
        x = normals(own, rows, n)
        v = (1 + c * x) ** 3
        log_v = jnp.log(jnp.where(v > 0, v, 1))
        enough = jnp.log(_uniform(jax.random.fold_in(own, 1), (rows, n))) < x * x / 2 + d * (1 - v + log_v)
        good = (v > 0) & enough
        return turn + 1, jnp.where(accepted | ~good, value, v), accepted | good

    start = (jnp.uint32(1), jnp.ones_like(freedom), jnp.zeros(freedom.shape, bool))
    _, v, _ = jax.lax.while_loop(lambda s: ~jnp.all(s[2]), draw, start)
    u = _uniform(jax.random.fold_in(key, 0), (rows, n))
    boost = jnp.where(boosted, jnp.exp(jnp.log(u) * 2 / jnp.where(freedom > 0, freedom, 1)), 1)
    return jnp.where(freedom > 0, 2 * d * v * boost, 0)


def _uniform(key: Any, shape: tuple[int, int]) -> jax.Array:
    """In (0, 1]."""
    word, _ = words(jax.random.key_data(key), shape)
    return word.astype(jnp.float32) * jnp.float32(2.0**-32) + jnp.float32(2.0**-33)
