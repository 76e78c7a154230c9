"""simulate, implicit: the memory of wide and deep networks, and its growth with the width.

tanh, two inputs, forward and backward, every default statistic. Each line is a process of its own: its peak resident
memory, before and after the networks (the difference is what they took, the compiler included), and the seconds of the
one call. Then a straight line through the differences over the widths, and by how much they leave it.

    python experiments/bench/memory.py [--widths 16384 32768 65536] [--depth 250] [--seeds 2]
    python experiments/bench/memory.py --widths 65536 --depth 1000 --seeds 8
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

MB = 1e6


def peak() -> float:
    """The most memory that this process has held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def one(width: int, depth: int, seeds: int) -> dict[str, float]:
    """A simulation, in this process."""
    import jaxinit as ji

    ji.simulate(ji.Network(2, 64, "tanh", weight_variance=1.76, bias_variance=0.05), 2)
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    network = ji.Network(depth, width, "tanh", weight_variance=1.76, bias_variance=0.05)
    ji.simulate(network, seeds, sampler="implicit")
    return {
        "before": before, "peak": peak(), "wall": time.perf_counter() - start, "cpu": time.process_time() - cpu,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[16384, 32768, 65536])
    parser.add_argument("--depth", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(one(args.widths[0], args.depth, args.seeds)))
        return
    print(f"tanh, depth {args.depth}, {args.seeds} seeds, two inputs, forward + backward")
    print(f"{'width':>7} {'peak RSS':>10} {'networks':>10} {'a unit':>9} {'wall':>8} {'CPU':>8}")
    taken = []
    for width in args.widths:
        call = [sys.executable, __file__, "--alone", "--widths", str(width), "--depth", str(args.depth)]
        out = subprocess.run([*call, "--seeds", str(args.seeds)], check=True, capture_output=True, text=True)
        found = json.loads(out.stdout.splitlines()[-1])
        taken.append(found["peak"] - found["before"])
        each = taken[-1] * MB / width / args.depth
        print(
            f"{width:>7} {found['peak']:>7.0f} MB {taken[-1]:>7.0f} MB {each:>7.1f} B {found['wall']:>6.1f} s "
            f"{found['cpu']:>6.1f} s", flush=True,
        )  # fmt: skip
    if len(taken) > 1:
        slope, start = np.polyfit(args.widths, taken, 1)
        off = np.max(np.abs(np.polyval((slope, start), args.widths) / taken - 1))
        print(
            f"{slope * MB / args.depth:.1f} bytes a unit and layer + {start:.0f} MB, at most {100 * off:.1f} % off"
        )


if __name__ == "__main__":
    main()
