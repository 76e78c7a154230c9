"""The public LSUV for PyTorch on the network of `calibrate.py`, for comparison on one machine.

Needs an interpreter that has `torch` and `lsuv` (pip install torch lsuv); neither is needed for anything else here.
PyTorch compiles nothing, so there is no cold and warm: the first call and the best one, wall seconds and CPU seconds of
all threads, and how far the standard deviations of all layers are from 1 afterwards.

    python experiments/bench/calibrate_peer.py [--rounds 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import time
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    if missing := [name for name in ("torch", "lsuv") if importlib.util.find_spec(name) is None]:
        print(f"nothing to compare with here: pip install {' '.join(missing)}")
        return
    torch, lsuv = (importlib.import_module(name) for name in ("torch", "lsuv"))
    if args.threads:
        torch.set_num_threads(args.threads)
    nn = torch.nn

    def model() -> Any:
        channels = [3, *[64] * 5]
        layers = [
            layer
            for a, b in itertools.pairwise(channels)
            for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())
        ]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    x = torch.randn(64, 3, 32, 32)
    for start, orthonormal in (("own", False), ("orthonormal", True)):
        times = []
        for _ in range(args.rounds):
            net = model()
            wall, cpu = time.perf_counter(), time.process_time()
            lsuv.lsuv_with_singlebatch(net, x, do_orthonorm=orthonormal, verbose=False)
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
        off, h = 0.0, x
        with torch.no_grad():
            for layer in net:
                h = layer(h)
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    off = max(off, abs(float(h.std()) - 1))
        (first, first_cpu), (best, best_cpu) = times[0], min(times)
        print(
            f"{start:12s}torch {torch.__version__}, {torch.get_num_threads()} threads: first {first:.2f} s "
            f"({first_cpu:.2f} CPU s), best {best:.2f} s ({best_cpu:.2f} CPU s); every rms within {off:.1e} of 1",
            flush=True,
        )


if __name__ == "__main__":
    main()
