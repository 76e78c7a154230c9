"""simulate: implicit weights against materialized ones, and against merely drawing the normals it needs.

Depth 64, tanh, two inputs, forward and backward, every default statistic; seconds per network, warm, both
samplers in one process taking turns. The materialized sampler is the same program with its weights drawn
and kept (redrawn in the backward pass where they would not fit).

    python experiments/bench/simulate.py [--widths 256 1024 4096] [--rounds 5]
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
from _timing import cold, paired

import jaxinit as ji
from jaxinit.ensemble import keys_of

DEPTH, INPUTS = 64, 2
#: Networks a timing: enough to fill the batches, few enough for the materialized sampler to finish.
IMPLICIT_SEEDS = {256: 256, 1024: 64, 4096: 32}
MATERIALIZED_SEEDS = {256: 8, 1024: 2, 4096: 1}


@jax.jit
def draw(keys: jax.Array, pieces: jax.Array) -> jax.Array:
    """Draw and consume len(pieces) pieces of normals per key in a scan, as `simulate` does: 2 x inputs x width."""

    def one(key: jax.Array) -> jax.Array:
        def step(total: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
            normals = jax.random.normal(jax.random.fold_in(key, layer), pieces.shape[1:])
            return total + jnp.sum(normals), None

        return jax.lax.scan(step, jnp.float32(0.0), jnp.arange(DEPTH))[0]

    batch = max(1, (1 << 15) // pieces[0].size)
    return jnp.sum(jax.lax.map(one, keys, batch_size=batch))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"depth {DEPTH}, tanh, {INPUTS} inputs, forward + backward; {device}")
    header = ("width", "implicit", "materialized", "ratio", "normals", "over normals", "cold")
    print("{:>6} {:>12} {:>13} {:>7} {:>10} {:>13} {:>7}".format(*header))
    for width in args.widths:
        print(measure(width, args.rounds), flush=True)


def measure(width: int, rounds: int) -> str:
    """The line of one width."""
    network = ji.Network(DEPTH, width, "tanh", weight_variance=1.76, bias_variance=0.05)
    many, few = IMPLICIT_SEEDS.get(width, 16), MATERIALIZED_SEEDS.get(width, 1)
    keys, pieces = keys_of(jnp.arange(many), 0), jnp.zeros((DEPTH, 2 * INPUTS, width))
    calls = {
        "implicit": lambda: ji.simulate(network, many, sampler="implicit"),
        "materialized": lambda: ji.simulate(network, few, sampler="materialized"),
        "normals": lambda: draw(keys, pieces),
    }
    first, *_ = [cold(f) for f in calls.values()]
    best = paired(calls, rounds)
    implicit, materialized, normals = (
        best["implicit"] / many,
        best["materialized"] / few,
        best["normals"] / many,
    )
    return (
        f"{width:>6} {implicit * 1e3:>9.3f} ms {materialized * 1e3:>10.2f} ms {materialized / implicit:>6.0f}x "
        f"{normals * 1e3:>7.3f} ms {implicit / normals:>12.2f}x {first:>6.1f}s"
    )


if __name__ == "__main__":
    main()
