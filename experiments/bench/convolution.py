"""Both sides of the rule by which kernels are formed or not: CPU seconds of a network, never formed against drawn.

Depth 8, tanh, two inputs, circular kernels of three taps, forward and backward, warm. The matrix of a layer is
(3 channels, channels), and is multiplied with as many columns as inputs x places; `simulate(sampler="auto")` does not
form it where `channels` are at least 8 times the columns, or 16 times above 128 columns, which LAPACK makes orthogonal.
The ratio is the seconds of drawn kernels over those of kernels never formed, the median (and quartiles) over rounds in
which both take turns, so that a busy machine does not tilt it. The rule is right where it picks "implicit" above 1, and
either way where the quartiles are on both sides of 1.

    python experiments/bench/convolution.py [--channels 64 256 1024] [--shares 16 8 4 2 1]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # whose idle threads would count

import jax
import numpy as np
from _timing import ratio, turns

import jaxinit as ji

DEPTH, INPUTS, TAPS = 8, 2, 3
SAMPLERS = ("implicit", "materialized")
LINE = "{:>8} {:>7} {:>7} {:>9} {:>13} {:>20} {:>13} {:>7}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument(
        "--shares", type=int, nargs="+", default=[16, 8, 4, 2, 1], help="of channels over columns"
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}; CPU milliseconds a network of depth {DEPTH}"
    )
    print(LINE.format("channels", "places", "columns", "implicit", "materialized", "ratio", "auto picks", ""))
    for channels in args.channels:
        for share in args.shares:
            places = channels // share // INPUTS
            if places < TAPS:
                continue
            network = ji.Network(
                DEPTH, channels, "tanh", weight_variance=1.5, spatial=ji.Spatial(places, kernel=TAPS)
            )
            seeds = max(2, 4096 // channels)
            calls = {s: (lambda s=s, n=network, k=seeds: ji.simulate(n, k, sampler=s)) for s in SAMPLERS}
            spent = turns(calls, args.rounds)
            middle, low, high = ratio(spent["materialized"], spent["implicit"])
            picked = ji.simulate(network, 1, record=["mean"]).config["sampler"].split()[0]
            right = (
                "either" if low <= 1 <= high else "right" if (low > 1) == (picked == "implicit") else "wrong"
            )
            print(
                LINE.format(
                    channels, places, INPUTS * places,
                    *(f"{1e3 * np.median(v) / seeds:.2f}" for v in spent.values()),
                    f"{middle:.2f} [{low:.2f}, {high:.2f}]", picked, right,
                ),
                flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
