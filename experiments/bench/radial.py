"""simulate(sampler="radial"), which draws lengths alone, against the general implicit sampler.

ReLU, one input, constant width; seconds of all seeds, cold (with compilation, a first batch) and warm, forward only and
with gradients, every statistic that lengths tell. The general sampler draws few networks, and its time is scaled.
Widths below 100 take the lifted chi-squares of `jaxinit.simulate._chi`. CPU seconds are of all threads.

    python experiments/bench/radial.py [--depth 1000] [--seeds 1000000] [--widths 50 1000] [--general 16]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax

import jaxinit as ji


def seconds(f: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    start, cpu = time.perf_counter(), time.process_time()
    f()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1_000_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[50, 1000])
    parser.add_argument("--general", type=int, default=16, help="networks of the general sampler")
    args = parser.parse_args()
    device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"relu, depth {args.depth}, one input, {args.seeds} seeds; {device}")
    print(
        f"{'width':>6} {'':>9} {'cold':>8} {'warm':>8} {'CPU':>9} {'ns a layer':>11} {'general':>12} {'ratio':>8}"
    )
    for width in args.widths:
        network = ji.Network(args.depth, width, "relu", weight_variance=2.0)
        for backward in (False, True):
            options: dict[str, Any] = {"backward": backward, "record": None}
            radial = lambda n: ji.simulate(network, n, sampler="radial", **options)  # noqa: B023, E731
            general = lambda: ji.simulate(  # noqa: E731
                network, args.general, sampler="implicit", x=[[1.0] * width], **options  # noqa: B023
            )  # fmt: skip
            first, _ = seconds(lambda: radial(min(args.seeds, 1 << 14)))  # noqa: B023
            wall, cpu = seconds(lambda: radial(args.seeds))  # noqa: B023
            general()
            theirs = min(seconds(general)[1] for _ in range(3)) / args.general * args.seeds
            print(
                f"{width:>6} {'both' if backward else 'forward':>9} {first:>6.1f} s {wall:>6.1f} s {cpu:>7.1f} s "
                f"{cpu / args.seeds / args.depth * 1e9:>11.1f} {theirs:>10.0f} s {theirs / cpu:>7.0f}x", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
