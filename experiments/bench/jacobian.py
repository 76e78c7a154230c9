"""The largest singular values of the Jacobian of a wide and deep network, by Lanczos, no weight formed.

tanh at the edge of chaos. Lines: the values and the bounds of their errors (of the logs), Lanczos steps, peak resident
memory of the process, and wall and CPU seconds of the one call, the compiler included. Beside them what J, and all
weights, would take in float32.

    python experiments/bench/jacobian.py [--width 65536] [--depth 100] [--count 3] [--ensemble gaussian] [--seed 0]
"""

from __future__ import annotations

import argparse
import time

import jax
from memory import peak

import jaxinit as ji


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=65536)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--ensemble", choices=("gaussian", "orthogonal"), default="gaussian")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    edge = ji.meanfield.critical("tanh", 0.05)[0]
    network = ji.Network(
        args.depth, args.width, "tanh", weight_variance=edge.weight_variance, bias_variance=0.05,
        ensemble=args.ensemble,
    )  # fmt: skip
    matrix = 4 * args.width**2 / 2**30
    print(f"{network.label}, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"J would take {matrix:.3g} GiB, the weights {args.depth * matrix:.3g} GiB", flush=True)
    start, cpu = time.perf_counter(), time.process_time()
    run = ji.simulate(
        network, [args.seed], q=(edge.q - 0.05) / edge.weight_variance, backward=False,
        record=["second_moment"], sampler="implicit", jacobian=args.count,
    )  # fmt: skip
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    values, errors, steps = (
        run.extra["jacobian_" + name][0] for name in ("singular_values", "log_errors", "steps")
    )
    off = ", ".join(f"{e:.1e}" for e in errors)
    print(f"singular values {', '.join(f'{v:.5g}' for v in values)}, off by at most {off} of themselves")
    print(f"{steps} steps, peak {peak() / 1e3:.1f} GB, {wall:.0f} s wall, {cpu:.0f} s CPU")


if __name__ == "__main__":
    main()
