"""The probe of a decoder whose weights are never formed: seconds, cold and warm, and the peak of memory.

A pre-norm decoder, scanned and rematerialized, forward and backward, with every statistic of the probe. The
default is as large as the largest open models: 77.8 billion weights, which would take 290 GiB to draw.

    python experiments/bench/probe_implicit.py [--tiny] [--width 8192] [--layers 80] [--heads 64] [--hidden 28672]
                                               [--tokens 16]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import jaxinit as ji
from jaxinit.probe import probe

TINY = {"width": 256, "layers": 4, "heads": 4, "hidden": 896, "tokens": 16}
KERNEL = ji.variance_scaling(1.0, "fan_in", "normal")


class Block(nn.Module):
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Any, mask: Any) -> Any:
        attention = nn.MultiHeadDotProductAttention(self.heads, kernel_init=KERNEL, use_bias=False)
        x = x + attention(nn.RMSNorm()(x), mask=mask)
        h = nn.RMSNorm()(x)
        gate, up = (
            nn.Dense(self.hidden, use_bias=False, kernel_init=KERNEL, name=n)(h) for n in ("gate", "up")
        )
        down = nn.Dense(x.shape[-1], use_bias=False, kernel_init=KERNEL, name="down")
        return x + down(nn.silu(gate) * up), None


class Decoder(nn.Module):
    layers: int
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        stack = nn.scan(
            nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast,
            length=self.layers,
        )  # fmt: skip
        x, _ = stack(self.heads, self.hidden, name="blocks")(x, nn.make_causal_mask(np.ones(x.shape[:2])))
        return nn.RMSNorm()(x)


def measure(size: dict[str, int]) -> None:
    """One process: the probe twice, cold and warm."""
    model = Decoder(size["layers"], size["heads"], size["hidden"])
    x = np.random.default_rng(0).normal(size=(1, size["tokens"], size["width"])).astype("f4")
    seconds = []
    for seed in (0, 1):
        start = time.perf_counter()
        run = probe(model, x, seeds=[seed], weights="implicit")
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    weights, unformed = run.parameters.shapes, run.config["unformed_bytes"]
    count = sum(int(np.prod(shape)) for shape in weights)
    print(
        f"{count / 1e9:.3g} billion parameters, {unformed / 2**30:.4g} GiB never formed, {len(run.sites)} sites, "
        f"{jax.default_backend()}: cold {seconds[0]:.1f} s, warm {seconds[1]:.1f} s, peak {peak:.2f} GiB"
    )
    rms = np.sqrt(run["second_moment"].mean[:, 0])
    print(f"rms of the output {rms[-1]:.3g}; all finite: {bool(np.all(np.isfinite(rms)))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--here", action="store_true", help="in this process, not in one of its own")
    for name, value in {"width": 8192, "layers": 80, "heads": 64, "hidden": 28672, "tokens": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    if not given.here:
        raise SystemExit(subprocess.call([sys.executable, __file__, *sys.argv[1:], "--here"]))
    measure(TINY if given.tiny else {name: getattr(given, name) for name in TINY})


if __name__ == "__main__":
    main()
