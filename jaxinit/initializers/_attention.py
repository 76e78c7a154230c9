"""Initializers of pairs of weights: LoRA, and mimetic attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinit._core import checks
from jaxinit._core.lapack import svd
from jaxinit.initializers._base import Initializer, _read_dtype, _read_key, working_dtype
from jaxinit.initializers._scaling import VarianceScaling
from jaxinit.initializers._simple import Constant

__all__ = ["Attention", "LoRA", "lora", "mimetic_attention"]


class LoRA(NamedTuple):
    """Initializers of the two factors of a low-rank update `x @ a @ b`."""

    a: Initializer
    b: Initializer


class Attention(NamedTuple):
    """Kernels of one attention layer: query, key, value (features, heads * size), out (heads * size, features)."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    out: jax.Array


def lora(distribution: str = "uniform") -> LoRA:
    """The pair of a low-rank update `x @ a @ b`: a random with variance 1 / (3 fan_in), b zero.

    Args:
        distribution: law of `a`; "uniform" is U(-1 / sqrt(in), 1 / sqrt(in)), the reference code's.

    Flax's `nnx.LoRA` default draws `a` by `he_uniform()`, sqrt(6) times as wide.

    Source: Hu et al. 2021, "LoRA", section 4.1; microsoft/LoRA, loralib.

    Example:
        >>> from jaxinit.initializers import lora
        >>> round(lora().a.law((300, 8)).stddev * 30, 12), lora().b
        (1.0, zeros())
    """
    checks.choice("lora", "distribution", distribution, ("truncated_normal", "normal", "uniform"))
    return LoRA(VarianceScaling(1 / 3, "fan_in", distribution), Constant(0.0))


def mimetic_attention(
    key: Any,
    features: int,
    heads: int,
    dtype: Any = None,
    *,
    query_key: tuple[float, float] = (0.7, 0.7),
    value_out: tuple[float, float] = (0.4, 0.4),
) -> Attention:
    """Attention kernels whose products look like those of trained Transformers.

        query_h key_h^T ~ alpha Z_h + beta I,      value out ~ alpha' Z - beta' I,      Z_ij ~ N(0, 1 / features)

    Each right side is factored by its SVD, u s v^T, as (u sqrt(s)) (sqrt(s) v^T); of query and key each head keeps
    the first size = features / heads singular directions of its own draw. Biases are zero.

    Args:
        key: one jax.random key.
        features: width d of the model.
        heads: number of heads, a divisor of it.
        dtype: dtype of the kernels; the factorization is done in float32 or better.
        query_key, value_out: (alpha, beta) and (alpha', beta').

    Returns:
        `Attention` kernels, applied as `x @ kernel`.

    Raises:
        ValueError: if `heads` does not divide `features`.

    The signs (query_h key_h^T near the identity, value out near its negative) are what the paper finds in trained
    vision Transformers; 0.7 for query and key, 0.4 for value and out, with noise of variance 1 / features, are its
    constants for those, as its method is set up in the public vision-Transformer codes that compare with it (which
    draw Z uniform of the same variance).

    Source: Trockman & Kolter 2023, "Mimetic initialization of self-attention layers", arXiv 2305.09828;
    the constants also in osiriszjq/structured_init (Zheng et al. 2024, arXiv 2404.01139).

    Example:
        >>> import jax
        >>> from jaxinit.initializers import mimetic_attention
        >>> w = mimetic_attention(jax.random.key(0), 32, 4)
        >>> w.query.shape, bool((w.value @ w.out).trace() < -8)
        ((32, 32), True)
    """
    where = "mimetic_attention"
    d = checks.integer(where, "features", features, at_least=1)
    h = checks.integer(where, "heads", heads, at_least=1)
    if d % h:
        raise checks.bad(where, "heads", f"a divisor of the {d} features", heads)
    pairs = []
    for name, pair in (("query_key", query_key), ("value_out", value_out)):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise checks.wrong_type(where, name, "a pair (alpha, beta)", pair)
        pairs.append(tuple(float(checks.number(where, name, p)) for p in pair))
    kind = _read_dtype(where, dtype, any_number=False)
    if not jnp.issubdtype(kind, jnp.floating):
        raise checks.wrong_type(where, "dtype", "a real floating-point dtype", kind.name)
    work = working_dtype(kind)
    key_qk, key_vo = jax.random.split(_read_key(where, key))

    def factors(k: Any, batch: tuple[int, ...], alpha: float, beta: float) -> tuple[jax.Array, jax.Array]:
        z = jax.random.normal(k, (*batch, d, d), work) * jnp.asarray(alpha * d**-0.5, work)
        eye = jnp.asarray(beta, work) * jnp.eye(d, dtype=work)
        u, s, vt = svd(z + jnp.broadcast_to(eye, z.shape))
        root = jnp.sqrt(s)
        return u * root[..., None, :], root[..., :, None] * vt

    q, kt = factors(key_qk, (h,), *pairs[0])
    size = d // h
    query = jnp.moveaxis(q[..., :size], 0, 1).reshape(d, d)
    keys = jnp.moveaxis(kt[:, :size, :], -1, 0).reshape(d, d)
    value, out = factors(key_vo, (), pairs[1][0], -pairs[1][1])
    return Attention(*(w.astype(kind) for w in (query, keys, value, out)))
