"""Ensembles: two devices against one, what cutting into chunks costs, what keeping them on disk costs.

`simulate` of a tanh network, forward and backward, every default statistic, by the implicit sampler; the CPU is
divided into two devices, of which one alone computes one chunk at a time (it would take both cores if it were the
only device), so on two cores two devices can be at most twice as fast. Warm, in one process, the calls
taking turns. Run it on a quiet machine with two cores to itself.

    python experiments/bench/ensemble.py [--depth 64] [--width 1024] [--seeds 128] [--rounds 5]

Prints one line a comparison: seconds of both and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 2)  # before JAX is used

from _timing import cold, paired  # noqa: E402

import jaxinit as ji  # noqa: E402
from jaxinit.simulate import sweep  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("depth", 64), ("width", 1024), ("seeds", 128), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    network = ji.Network(args.depth, args.width, "tanh", weight_variance=1.76, bias_variance=0.05)
    device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"depth {args.depth}, width {args.width}, {args.seeds} seeds; {device}")

    def simulate(**options):
        return ji.simulate(network, args.seeds, **options)

    with tempfile.TemporaryDirectory() as folder:
        fresh = iter(Path(folder) / str(i) for i in range(10_000))
        eighth = max(1, args.seeds // 8)
        calls = {
            "one device": lambda: simulate(devices=1),
            "two devices": lambda: simulate(devices=2),
            "one device, 8 chunks": lambda: simulate(devices=1, chunk=eighth),
            "one device, 8 chunks kept on disk": lambda: simulate(
                devices=1, chunk=eighth, resume=next(fresh)
            ),
        }
        first = {name: cold(f) for name, f in calls.items()}
        best = paired(calls, args.rounds)
        bytes_kept = sum(p.stat().st_size for p in (Path(folder) / "0").iterdir())
    for name, seconds in best.items():
        print(f"{name:<36} {seconds:8.3f} s   cold {first[name]:6.1f} s")
    one, chunks = best["one device"], best["one device, 8 chunks"]
    kept = best["one device, 8 chunks kept on disk"]
    print(f"two devices over one: {one / best['two devices']:.2f}x as fast")
    print(f"a chunk: {(chunks - one) / 7 * 1e3:+.1f} ms each, {100 * (chunks / one - 1):+.1f} % in all")
    print(f"a chunk on disk: {(kept - chunks) / 8 * 1e3:+.1f} ms each, {100 * (kept / chunks - 1):+.1f} % in all, "
          f"{bytes_kept / 2**20:.2f} MiB")  # fmt: skip
    points(args.rounds)


def points(rounds: int) -> None:
    """What a point of a sweep costs beside its networks: small networks, few seeds."""
    grid = {"depth": 10, "width": 64, "activation": "tanh", "bias_variance": 0.05}
    variances = [1.0 + i / 32 for i in range(32)]
    calls = {
        "sweep": lambda: sweep({**grid, "weight_variance": variances}, 8, devices=1),
        "one call": lambda: ji.simulate(
            ji.Network(10, 64, "tanh", weight_variance=1.5, bias_variance=0.05), 8 * 32, devices=1, batch=8
        ),
    }
    first = {name: cold(f) for name, f in calls.items()}
    best = paired(calls, rounds)
    each = (best["sweep"] - best["one call"]) / 32 * 1e3
    print(f"sweep of 32 points x 8 seeds: {best['sweep']:.3f} s (cold {first['sweep']:.1f} s), "
          f"as many networks in one call: {best['one call']:.3f} s; a point costs {each:+.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
