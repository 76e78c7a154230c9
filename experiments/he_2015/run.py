"""He against Xavier in plain ReLU networks of 22 and 30 layers: does the deeper one stall, and does Adam help?"""

from __future__ import annotations

from pathlib import Path

from _common import train

from jaxinit.compare import load_data
from jaxinit.models import MLP

#: Learning rates of each optimizer; wide enough that no best rate is the smallest or the largest.
RATES = {"momentum": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3), "adam": (0.00003, 0.0001, 0.0003, 0.001, 0.003)}
FULL = {"depths": (22, 30), "width": 64, "seeds": 5, "steps": 600, "optimizers": ("momentum", "adam")}
TINY = {"depths": (8,), "width": 16, "seeds": 2, "steps": 20, "optimizers": ("momentum",)}


def main(out: Path, *, data: tuple[str, ...] = ("digits",), tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    for source in data:
        # of a file, 12,000 examples beside its own test part, and the optimizer of the paper alone
        small = source == "digits"
        examples = load_data(source, limit=None if small else 12_000)
        for depth in size["depths"]:
            for optimizer in size["optimizers"] if small else ("momentum",):
                name = f"{examples.name}_{depth}_{optimizer}"
                model = MLP(depth, size["width"], examples.outputs)
                train(
                    out, name, model, ["he", "xavier"], examples, optimizer,
                    seeds=size["seeds"], learning_rates=RATES[optimizer], steps=size["steps"], signals=True,
                    label=f"{depth} layers, {examples.name}, {optimizer}",
                )  # fmt: skip
    return out
