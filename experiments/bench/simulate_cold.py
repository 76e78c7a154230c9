"""simulate, cold: what the first call of each kind of network costs, which is compiling its program.

Each kind in a process of its own; seconds of the first and of a second call, without importing. CPU seconds are of all
threads: the compiler uses several.

    python experiments/bench/simulate_cold.py [--kinds dense residual normalized convolutional tied] [--depth 64]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

KINDS = ("dense", "residual", "normalized", "convolutional", "tied")


def network(kind: str, depth: int) -> Any:
    """A tanh network of a kind."""
    import jaxinit as ji

    more: dict[str, Any] = {
        "dense": {}, "residual": {"residual": ji.Residual()}, "normalized": {"norm": "layer"},
        "convolutional": {"spatial": ji.Spatial((8, 8), kernel=3)}, "tied": {"tied": True},
    }[kind]  # fmt: skip
    width = 64 if kind == "convolutional" else 1024
    return ji.Network(depth, width, "tanh", weight_variance=1.76, bias_variance=0.05, **more)


def one(kind: str, depth: int) -> list[float]:
    """Wall and CPU seconds of the first call, and wall seconds of the second, in this process."""
    import jax

    import jaxinit as ji

    jax.block_until_ready(jax.numpy.zeros(1))
    net, out = network(kind, depth), []
    for _ in range(2):
        start, cpu = time.perf_counter(), time.process_time()
        ji.simulate(net, 2)
        out += [time.perf_counter() - start, time.process_time() - cpu]
    return out[:3]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(one(args.kinds[0], args.depth)))
        return
    print(f"tanh, depth {args.depth}, two inputs, forward + backward, 2 seeds")
    print(f"{'kind':<14} {'first':>8} {'CPU':>8} {'second':>9}")
    for kind in args.kinds:
        call = [sys.executable, __file__, "--alone", "--kinds", kind, "--depth", str(args.depth)]
        out = subprocess.run(call, check=True, capture_output=True, text=True).stdout
        first, cpu, second = json.loads(out.splitlines()[-1])
        print(f"{kind:<14} {first:>6.1f} s {cpu:>6.1f} s {second * 1e3:>6.0f} ms", flush=True)


if __name__ == "__main__":
    main()
