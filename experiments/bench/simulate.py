"""simulate: implicit weights against materialized ones, and against merely drawing the normals it needs.

Depth 64, tanh, two inputs, forward and backward, every default statistic; seconds per network, warm, both
samplers in one process taking turns. The materialized sampler is the same program with its weights drawn
and kept (redrawn in the backward pass where they would not fit); "plain" is JAX without this library, which draws and
keeps them with jax.random and differentiates by jax.grad.

The normals are the 2 x inputs x width x depth that the implicit sampler needs, drawn and summed in pieces that fit into
a cache, by the same engine on as many cores; "over" is the time of a network over that of its normals alone. The bar,
at most 1.5, is about those of jax.random ("jax's"), by which anybody else would draw them. Against the library's own
generator ("normals"), which takes a fourth of that time, the same ratio says what all the rest costs: frames,
products, the nonlinearity and every statistic, in units of a draw that is nearly free. It is a measure, without a bar.

    python experiments/bench/simulate.py [--widths 256 1024 4096] [--rounds 5]

With --lanes only: a chunk for each core at a time on a one-device CPU, against one chunk at a time, whose operations
XLA divides among the cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from _timing import cold, paired

import jaxinit as ji
from jaxinit import ensemble
from jaxinit._core.normals import normals
from jaxinit.ensemble._devices import Devices

DEPTH, INPUTS = 64, 2
LINE = "{:>6} {:>12} {:>13} {:>7} {:>12} {:>7} {:>11} {:>7} {:>11} {:>7} {:>8}"
#: Networks a timing: enough to fill the batches, few enough for the materialized sampler to finish.
IMPLICIT_SEEDS = {256: 256, 1024: 64, 4096: 32}
MATERIALIZED_SEEDS = {256: 8, 1024: 2, 4096: 1}


@dataclasses.dataclass(frozen=True)
class Draw:
    """Normals of one network and nothing else: drawn and summed in a scan, 2 x inputs x width at a time."""

    width: int
    generator: Callable[..., jax.Array]

    def __call__(self, key: jax.Array, data: None) -> dict[str, jax.Array]:
        def step(total: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
            piece = self.generator(jax.random.fold_in(key, layer), 2 * INPUTS, self.width)
            return total + jnp.sum(piece), None

        return {"total": jax.lax.scan(step, jnp.float32(0.0), jnp.arange(DEPTH))[0]}

    def many(self, seeds: int) -> None:
        """Of so many networks, on the same threads as `simulate`, in batches that fit into a cache."""
        batch = max(1, (1 << 17) // (2 * INPUTS * self.width))
        ensemble.run(self, None, np.arange(seeds, dtype=np.uint32), batch=batch)


def by_jax(key: jax.Array, rows: int, n: int) -> jax.Array:
    """The generator of jax.random."""
    return jax.random.normal(key, (rows, n))


@partial(jax.jit, static_argnames="width")
def plain(key: jax.Array, width: int) -> jax.Array:
    """The network in plain JAX, weights drawn by jax.random and kept: second moments and gradients by jax.grad."""
    keys = jax.random.split(key, (DEPTH, 2))
    x = jax.random.normal(key, (INPUTS, width))

    def loss(probes: jax.Array) -> tuple[jax.Array, jax.Array]:
        def layer(h: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            k, probe = xs
            w = jax.random.normal(k[0], (width, width)) * jnp.sqrt(1.76 / width)
            z = h @ w + jax.random.normal(k[1], (width,))[None, :] * jnp.sqrt(0.05) + probe
            return jnp.tanh(z), jnp.mean(z**2, axis=1)

        h, q = jax.lax.scan(layer, x, (keys, probes))
        return jnp.sum(h) / jnp.sqrt(width), q

    gradients, q = jax.grad(loss, has_aux=True)(jnp.zeros((DEPTH, INPUTS, width)))
    return jnp.stack([q, jnp.mean(gradients**2, axis=2)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lanes", action="store_true", help="chunks at the same time against one at a time")
    args = parser.parse_args()
    device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"depth {DEPTH}, tanh, {INPUTS} inputs, forward + backward; {device}")
    if args.lanes:
        for width in args.widths:
            print(lanes(width, args.rounds), flush=True)
        return
    header = [
        "width",
        "implicit",
        "materialized",
        "ratio",
        "plain",
        "ratio",
        "normals",
        "over",
        "jax's",
        "over",
        "cold",
    ]
    print(LINE.format(*header))
    for width in args.widths:
        print(measure(width, args.rounds), flush=True)


def lanes(width: int, rounds: int) -> str:
    """Several chunks at a time against one, of one width."""
    network = ji.Network(DEPTH, width, "tanh", weight_variance=1.76, bias_variance=0.05)
    seeds = IMPLICIT_SEEDS.get(width, 16)
    count = Devices.of("lanes").lanes()

    def single() -> None:
        with mock.patch.object(Devices, "lanes", lambda team: 1):
            ji.simulate(network, seeds, sampler="implicit")

    best = paired(
        {"lanes": lambda: ji.simulate(network, seeds, sampler="implicit"), "single": single}, rounds
    )
    each = {name: f"{1e3 * seconds / seeds:.3f} ms" for name, seconds in best.items()}
    return (
        f"width {width}: {count} chunks at a time {each['lanes']} a network, one at a time {each['single']}: "
        f"{best['single'] / best['lanes']:.2f}x as fast"
    )


def measure(width: int, rounds: int) -> str:
    """The line of one width."""
    network = ji.Network(DEPTH, width, "tanh", weight_variance=1.76, bias_variance=0.05)
    many, few = IMPLICIT_SEEDS.get(width, 16), MATERIALIZED_SEEDS.get(width, 1)
    calls = {
        "implicit": lambda: ji.simulate(network, many, sampler="implicit"),
        "normals": lambda: Draw(width, normals).many(many),
        "jax": lambda: Draw(width, by_jax).many(many),
        "materialized": lambda: ji.simulate(network, few, sampler="materialized"),
        "plain": lambda: plain(jax.random.key(0), width),
        "rest": lambda: time.sleep(1.0),  # gigabytes are given back after a call has returned
    }
    first, *_ = [cold(f) for f in calls.values()]
    best = paired(calls, rounds)
    own = best["implicit"] / many
    materialized, ours, theirs = best["materialized"] / few, best["normals"] / many, best["jax"] / many
    return LINE.format(
        width,
        *(f"{own * 1e3:.3f} ms", f"{materialized * 1e3:.1f} ms", f"{materialized / own:.0f}x"),
        *(f"{best['plain'] * 1e3:.1f} ms", f"{best['plain'] / own:.0f}x"),
        *(f"{ours * 1e3:.3f} ms", f"{own / ours:.2f}x", f"{theirs * 1e3:.3f} ms", f"{own / theirs:.2f}x"),
        f"{first:.1f} s",
    )


if __name__ == "__main__":
    main()
