"""He against Xavier in plain ReLU networks of 22 and 30 layers: does the deeper one stall, and does Adam help?

python experiments/he_2015/run.py [--data digits] [--data mnist.npz] [--tiny] [--out DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jaxinit as ji
from jaxinit.compare import load_data
from jaxinit.models import MLP

HERE = Path(__file__).parent
#: Learning rates of each optimizer; wide enough that no best rate is the smallest or the largest.
RATES = {"momentum": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), "adam": (0.00003, 0.0001, 0.0003, 0.001, 0.003)}
FULL = {"depths": (22, 30), "width": 64, "seeds": 5, "steps": 600, "optimizers": ("momentum", "adam")}
TINY = {"depths": (22,), "width": 16, "seeds": 2, "steps": 20, "optimizers": ("momentum",)}


def main(out: Path = HERE / "out", *, data: tuple[str, ...] = ("digits",), tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    for source in data:
        # of a file, 12,000 examples beside its own test part, and the optimizer of the paper alone
        small = source == "digits"
        examples = load_data(source, limit=None if small else 12_000)
        for depth in size["depths"]:
            for optimizer in size["optimizers"] if small else ("momentum",):
                name = f"{examples.name}_{depth}_{optimizer}"
                record = ji.compare(
                    MLP(depth, size["width"], examples.outputs),
                    ["he", "xavier"],
                    examples,
                    optimizer,
                    seeds=size["seeds"],
                    learning_rates=RATES[optimizer],
                    steps=size["steps"],
                    signals=True,
                    resume=out / f"unfinished_{name}.npz",
                    progress=True,
                    label=f"{depth} layers, {examples.name}, {optimizer}",
                )
                record.save(out / f"{name}.npz")
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", help="digits, or the path of an .npz (may be repeated)")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    arguments = parser.parse_args()
    main(arguments.out, data=tuple(arguments.data or ["digits"]), tiny=arguments.tiny)
