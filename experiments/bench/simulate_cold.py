"""simulate, cold: what the first call of each kind of network costs, which is compiling its program.

Each kind in a process of its own; seconds of the first and of a second call, without importing. Of the first, as JAX
reports them: tracing and lowering, and compiling. CPU seconds are of all threads: the compiler uses several.

    python experiments/bench/simulate_cold.py [--kinds dense residual normalized convolutional tied] [--depth 64]

With --plain also without the options of the compiler that `jaxinit._core.compiling` chooses.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from typing import Any

KINDS = ("dense", "residual", "normalized", "convolutional", "tied")
#: What JAX calls the parts of a first call.
PARTS = {
    "jaxpr_trace_duration": "trace", "jaxpr_to_mlir_module_duration": "trace", "backend_compile_duration": "compile",
}  # fmt: skip


def network(kind: str, depth: int) -> Any:
    """A tanh network of a kind."""
    import jaxinit as ji

    more: dict[str, Any] = {
        "dense": {}, "residual": {"residual": ji.Residual()}, "normalized": {"norm": "layer"},
        "convolutional": {"spatial": ji.Spatial((8, 8), kernel=3)}, "tied": {"tied": True},
    }[kind]  # fmt: skip
    width = 64 if kind == "convolutional" else 1024
    return ji.Network(depth, width, "tanh", weight_variance=1.76, bias_variance=0.05, **more)


def one(kind: str, depth: int, plain: bool) -> list[float]:
    """Seconds in this process: of the first call, wall and CPU, tracing and compiling; and of the second."""
    import jax

    import jaxinit as ji
    from jaxinit._core import compiling

    if plain:
        compiling._ALWAYS.clear()
        compiling._OF_KIND.clear()
    jax.block_until_ready(jax.numpy.zeros(1))
    net, out, spent = network(kind, depth), [], {"compile": 0.0, "trace": 0.0}

    def note(event: str, seconds: float, **_: Any) -> None:
        if (part := PARTS.get(event.rpartition("/")[2])) is not None:
            spent[part] += seconds

    jax.monitoring.register_event_duration_secs_listener(note)
    for _ in range(2):
        start, cpu = time.perf_counter(), time.process_time()
        ji.simulate(net, 2)
        out += [time.perf_counter() - start, time.process_time() - cpu]
        if len(out) == 2:
            out += spent.values()
    return out[:5]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--plain", action="store_true", help="also without our options of the compiler")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(one(args.kinds[0], args.depth, args.plain)))
        return
    print(f"tanh, depth {args.depth}, two inputs, forward + backward, 2 seeds")
    print(f"{'kind':<14} {'first':>8} {'CPU':>8} {'compile':>8} {'trace':>8} {'second':>9}")
    for kind, plain in itertools.product(args.kinds, (False, True) if args.plain else (False,)):
        call = [sys.executable, __file__, "--alone", "--kinds", kind, "--depth", str(args.depth)]
        call += ["--plain"] * plain
        out = subprocess.run(call, check=True, capture_output=True, text=True).stdout
        first, cpu, compiled, traced, second = json.loads(out.splitlines()[-1])
        times = f"{first:>6.1f} s {cpu:>6.1f} s {compiled:>6.1f} s {traced:>6.1f} s"
        print(f"{kind:<14} {times} {second * 1e3:>6.0f} ms{'  plain' * plain}", flush=True)


if __name__ == "__main__":
    main()
