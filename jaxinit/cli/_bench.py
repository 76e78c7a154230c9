"""`jaxinit bench`: what leaving the weights unformed gains on this machine."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxinit.cli import _command, _options
from jaxinit.cli._output import Output

_EPILOG = """\
examples:
  jaxinit bench
  jaxinit bench --width 256,1024,4096 --rounds 5 --plain
  jaxinit bench --width 512 --activation relu --weight-variance 2 --json --out bench

Seconds a network: forward and backward, two inputs, every default statistic. Both samplers take turns in one process,
so that a busy machine hits both; the best round counts. Compilation is told apart, as "first call".
"""

#: Weights that one call of the materialized sampler draws: enough to be timed, few enough to wait for.
_DRAWN = 5e7


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "bench",
        "time networks without weights against networks with their weights drawn, on this machine",
        "Time `simulate` with its two samplers: implicit, which forms no weight matrix, and materialized, which draws "
        "them all. Both have the same law.",
        _EPILOG,
    )
    own.add_argument(
        "--width", type=_options.integers, default=[128, 512], metavar="N[,N...]", help="(default: 128,512)"
    )
    own.add_argument("--depth", type=int, default=64, metavar="L", help="(default: 64)")
    own.add_argument("--activation", default="tanh", metavar="NAME", help="(default: tanh)")
    own.add_argument("--weight-variance", type=float, default=1.76, metavar="V", help="(default: 1.76)")
    own.add_argument("--seeds", type=int, default=32, metavar="N", help="networks a call (default: 32)")
    own.add_argument("--rounds", type=int, default=3, metavar="N", help="timed calls of each (default: 3)")
    own.set_defaults(run=run_command)


def _timed(call: Callable[[], Any]) -> float:
    """Seconds of a call; `simulate` returns when its numbers are on the host."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def measure(options: argparse.Namespace, width: int) -> dict[str, Any]:
    """One width: seconds a network by either sampler, and of the first calls."""
    from jaxinit.network import Network
    from jaxinit.simulate import simulate

    network = Network(options.depth, width, options.activation, weight_variance=options.weight_variance)
    weights = options.depth * width**2
    counts = {
        "implicit": options.seeds,
        "materialized": max(1, min(options.seeds, int(_DRAWN / weights))),
    }
    calls = {name: lambda name=name: simulate(network, counts[name], sampler=name) for name in counts}
    first = {name: _timed(call) for name, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(options.rounds):
        for name, call in calls.items():
            best[name] = min(best[name], _timed(call))
    seconds = {name: best[name] / counts[name] for name in calls}
    return {
        "width": width, "weights": weights, "seconds": seconds, "first_call": first, "networks": counts,
        "ratio": seconds["materialized"] / seconds["implicit"],
    }  # fmt: skip


def run_command(options: argparse.Namespace, out: Output) -> None:
    """Run `jaxinit bench`."""
    from rich.table import Table

    from jaxinit._core import checks
    from jaxinit._core.files import write_bytes
    from jaxinit.cli._output import plain
    from jaxinit.records import provenance

    for name in ("depth", "seeds", "rounds"):
        checks.integer("bench", name, getattr(options, name), at_least=1)
    origin = provenance()
    device = f"{origin['device_count']} {origin['device']}, jax {origin['versions']['jax']}"
    rows = []
    for width in options.width:
        with out.progress(f"width {width}"):
            rows.append(measure(options, width))
    out.say(f"A network of depth {options.depth}, {options.activation}, forward and backward; {device}.")
    table = Table()
    for header in ("width", "implicit", "weights drawn", "ratio", "first calls"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["width"]),
            *(f"{1e3 * row['seconds'][name]:.3g} ms" for name in ("implicit", "materialized")),
            f"{row['ratio']:.3g}×",
            " and ".join(f"{s:.2g} s" for s in row["first_call"].values()),
        )
    out.say(table)
    out.say(f"Times of a network, warm, best of {options.rounds} rounds; the first calls compile.")
    result = {"command": "bench", "device": device, "rows": rows, "provenance": origin}
    files: list[Any] = []
    if options.out:
        files = [Path(options.out) / "bench.json"]
        write_bytes(files[0], (json.dumps(plain(result), indent=2) + "\n").encode())
        out.path(files[0], "Results")
    out.result(result | {"files": files})
