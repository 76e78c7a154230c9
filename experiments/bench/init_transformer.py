"""Time to initialize a 12-layer, width-1024 Transformer: Flax with JAX's initializers, Flax with these, and `reinit`.

    python experiments/bench/init_transformer.py [--layers 12] [--width 1024] [--repeats 5]

"cold" is the first call with nothing compiled, "warm" the median of the later ones, both until the arrays are ready.
The contenders take turns, so that a noisy machine hits all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

import jaxinit.initializers as ji
from jaxinit.adapt import reinit


class Block(nn.Module):
    """A pre-norm Transformer block."""

    heads: int
    kernel_init: Any
    bias_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        inits = {"kernel_init": self.kernel_init, "bias_init": self.bias_init}
        x = x + nn.MultiHeadDotProductAttention(self.heads, **inits)(nn.LayerNorm()(x))
        h = nn.gelu(nn.Dense(4 * width, **inits)(nn.LayerNorm()(x)))
        return x + nn.Dense(width, **inits)(h)


class Transformer(nn.Module):
    """A stack of blocks."""

    layers: int
    heads: int
    kernel_init: Any
    bias_init: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.layers):
            x = Block(self.heads, self.kernel_init, self.bias_init)(x)
        return nn.LayerNorm()(x)


def timed(run: Callable[[jax.Array], Any], key: jax.Array) -> float:
    """Seconds until the result is ready."""
    start = time.perf_counter()
    jax.block_until_ready(run(key))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="also time model.init without jit")
    args = parser.parse_args()

    x = jnp.zeros((1, 4, args.width))
    theirs = Transformer(
        args.layers, args.heads, jax.nn.initializers.lecun_normal(), jax.nn.initializers.zeros
    )
    ours = Transformer(args.layers, args.heads, ji.lecun_normal(), ji.zeros())
    shapes = jax.eval_shape(ours.init, jax.random.key(0), x)
    rules = {"**/kernel": ji.lecun_normal(), "**/bias": ji.zeros(), "**/scale": ji.ones()}
    contenders: dict[str, Callable[[jax.Array], Any]] = {
        "flax, jax.nn.initializers": jax.jit(lambda key: theirs.init(key, x)),
        "flax, jaxinit": jax.jit(lambda key: ours.init(key, x)),
        "jaxinit.reinit": lambda key: reinit(shapes, rules, key),
    }
    if args.eager:
        contenders["flax, jax.nn.initializers, eager"] = lambda key: theirs.init(key, x)
        contenders["flax, jaxinit, eager"] = lambda key: ours.init(key, x)
    cold = {name: timed(run, jax.random.key(0)) for name, run in contenders.items()}
    warm: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(args.repeats):
        for name, run in contenders.items():
            warm[name].append(timed(run, jax.random.key(i + 1)))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    base = "flax, jax.nn.initializers"
    median = {name: statistics.median(w) for name, w in warm.items()}
    print(
        f"{args.layers} layers, width {args.width}: {count / 1e6:.1f} M parameters, {jax.devices()[0].device_kind}"
    )
    for name in contenders:
        print(
            f"{name:36s} cold {cold[name]:7.2f} s   warm {median[name]:7.3f} s   "
            f"warm / flax {median[name] / median[base]:.2f}"
        )
    print(json.dumps({"cold": cold, "warm": median, "parameters": count}))


if __name__ == "__main__":
    main()
