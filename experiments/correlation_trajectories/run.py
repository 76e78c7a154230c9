"""How the correlation of two inputs moves through ReLU and tanh networks, on and off criticality."""

from __future__ import annotations

from pathlib import Path

import jaxinit as ji
from jaxinit.meanfield import critical, propagate

STARTS = (0.0, 0.5, 0.9)
FULL = {"width": 2000, "depth": 50, "deep": 400, "seeds": 64}
TINY = {"width": 64, "depth": 8, "deep": 8, "seeds": 4}


def cases() -> dict[str, tuple[str, float, float]]:
    """Name -> (activation, weight variance, bias variance)."""
    edge = critical("tanh", 0.05)[0].weight_variance
    return {
        "relu critical": ("relu", 2.0, 0.0),
        "relu ordered": ("relu", 1.5, 0.1),
        "tanh ordered": ("tanh", 1.0, 0.05),
        "tanh critical": ("tanh", edge, 0.05),
        "tanh chaotic": ("tanh", 3.0, 0.05),
    }


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    wanted = ["correlation", "one_minus_correlation"]
    for name, (activation, weight, bias) in cases().items():
        for start in STARTS:
            # the depth of the critical cases' tails is followed from one start
            deep = name.endswith("critical") and start == STARTS[0]
            depth = size["deep"] if deep else size["depth"]
            network = ji.Network(depth, size["width"], activation, weight_variance=weight, bias_variance=bias)
            stem = f"{name.replace(' ', '_')}_{start:g}"
            run = ji.simulate(network, size["seeds"], correlation=start, backward=False, record=wanted)
            run.save(out / f"{stem}_simulation.npz")
            propagate(network, correlation=start).save(out / f"{stem}_theory.npz")
    return out
