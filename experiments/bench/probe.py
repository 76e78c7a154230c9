"""probe against the floor: the same seeds through init, value_and_grad, and the norms of parameters and gradients.

The floor is taken twice: all seeds at once by vmap, as one would write it, and each seed by a call of its own, which
is how the probe runs networks of this size on a CPU. All in one process, taking turns; the least CPU seconds of the
whole process, of all its threads, so that a busy machine disturbs little; compilation apart; temporary memory as
the compiler states it. The probe records its default statistics at the outputs of all modules.

    python experiments/bench/probe.py [--models mlp resnet transformer scan] [--rounds 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.ensemble import keys_of
from jaxinit.models import MLP
from jaxinit.probe._probe import _build


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        return x + nn.Dense(x.shape[-1])(nn.relu(nn.LayerNorm()(x))), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        stack = nn.scan(Residual, variable_axes={"params": 0}, split_rngs={"params": True}, length=12)
        return nn.Dense(10)(stack()(x, None)[0])


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(32, (3, 3))(x)
        for _ in range(6):
            h = nn.Conv(32, (3, 3))(nn.relu(nn.GroupNorm(8)(x)))
            x = x + nn.Conv(32, (3, 3))(nn.relu(nn.GroupNorm(8)(h)))
        return nn.Dense(10)(x.mean(axis=(1, 2)))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embed = nn.Embed(256, 128)
        x = embed(tokens)
        for _ in range(4):
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            x = x + nn.Dense(128)(nn.gelu(nn.Dense(512)(nn.LayerNorm()(x))))
        return embed.attend(nn.LayerNorm()(x))


RNG = np.random.default_rng(0)
MODELS: dict[str, tuple[Any, Any, int]] = {
    "mlp": (MLP(11, 256, 256), RNG.normal(size=(128, 256)).astype("f4"), 8),
    "scan": (Scanned(), RNG.normal(size=(128, 256)).astype("f4"), 8),
    "resnet": (ResNet(), RNG.normal(size=(16, 16, 16, 3)).astype("f4"), 4),
    "transformer": (Transformer(), RNG.integers(0, 256, size=(8, 32)), 4),
}


def floor(model: Any, x: Any) -> Callable[[Any], Any]:
    """Draw, differentiate, and reduce to the norm of every parameter and gradient."""

    def one(key: Any) -> Any:
        params = model.init(key, x)["params"]

        def loss(params: Any) -> Any:
            out = model.apply({"params": params}, x)
            return jnp.sum(out * jax.random.normal(jax.random.fold_in(key, 1), out.shape[1:]))

        value, grad = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda v: jnp.sqrt(jnp.sum(jnp.square(v))), (params, grad))

    return one


def probed(model: Any, x: Any, record: Any) -> tuple[Callable[[Any], Any], int]:
    """The probe's own program of a seed, and how many rows it has."""
    args = (jnp.asarray(x),)
    built = _build(
        "probe", model, args, None, train=False, method=None, rngs=None, params=None, loss=None, backward=True,
        record=record, optimizer=None, sites=None, unformed=None,
    )  # fmt: skip
    rows = len(built.program.measure.watched.watched)
    return lambda key: built.program(key, (args, None, None)), rows


def compiled(f: Callable[[Any], Any], key: Any) -> tuple[Any, float, float, int]:
    """The program, CPU seconds to lower and to compile it, and its temporary bytes."""
    start = time.process_time()
    lowered = jax.jit(f).lower(key)
    middle = time.process_time()
    program = lowered.compile()
    memory = program.memory_analysis()
    return program, middle - start, time.process_time() - middle, memory.temp_size_in_bytes


def each(program: Any, keys: Any) -> list[Any]:
    """The seeds one after the other, each by a call of its own."""
    return [program(key) for key in keys]


def warm(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Least CPU seconds of a run, the programs taking turns."""
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(rounds + 1):
        for name, program in programs.items():
            start = time.process_time()
            jax.block_until_ready(program())
            best[name] = min(best[name], time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", nargs="+", default=None)
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; probe / floor (floor in s, MiB)")
    columns = ("lower", "compile", "run", "memory", "run, one by one", "memory")
    print(f"{'model':>12} {'seeds':>5} {'sites':>5} " + " ".join(f"{name:>16}" for name in columns))
    for name in args.models:
        model, x, seeds = MODELS[name]
        keys = keys_of(np.arange(seeds), 0)
        f, rows = probed(model, x, args.record)
        many, *cost_many = compiled(jax.vmap(floor(model, x)), keys)
        single, *cost_single = compiled(floor(model, x), keys[0])
        probe, *cost = compiled(f, keys[0])
        runs = {
            "many": partial(many, keys),
            "single": partial(each, single, keys),
            "probe": partial(each, probe, keys),
        }
        best = warm(runs, args.rounds)
        pairs = [
            (cost[0], cost_many[0]), (cost[1], cost_many[1]), (best["probe"], best["many"]),
            (cost[2] / 2**20, cost_many[2] / 2**20), (best["probe"], best["single"]),
            (cost[2] / 2**20, cost_single[2] / 2**20),
        ]  # fmt: skip
        cells = " ".join(f"{f'{new / old:.2f}x ({old:.3g})':>16}" for new, old in pairs)
        print(f"{name:>12} {seeds:>5} {rows:>5} {cells}", flush=True)


if __name__ == "__main__":
    main()
