"""Edge of chaos and depth scales of tanh: theory, and the decay of correlations in simulated networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import jaxinit as ji
from jaxinit.meanfield import critical, fixed_point, phase_diagram, propagate

BIAS = 0.05
WEIGHTS = (0.8, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0)
FULL = {"width": 2000, "depth": 60, "seeds": 40, "grid": 120}
TINY = {"width": 200, "depth": 12, "seeds": 8, "grid": 12}


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    diagram = phase_diagram(
        "tanh", np.linspace(0.5, 4.0, size["grid"]), np.linspace(0.0, 0.3, size["grid"] // 2)
    )
    diagram.save(out / "diagram.npz")
    scales = phase_diagram("tanh", np.linspace(0.5, 4.2, 3 * size["grid"]), [BIAS])
    scales.save(out / "scales.npz")
    edge = critical("tanh", BIAS)[0].weight_variance
    for weight in sorted({*WEIGHTS, edge}):
        network = ji.Network(size["depth"], size["width"], "tanh", weight_variance=weight, bias_variance=BIAS)
        # inputs of the length that puts the first layer at q*, so that only the correlation moves
        q = (fixed_point("tanh", weight, BIAS).q - BIAS) / weight
        wanted = ["correlation", "one_minus_correlation", "log_grad_second_moment"]
        run = ji.simulate(network, size["seeds"], q=q, correlation=0.3, record=wanted, keep_seeds=True)
        run.save(out / f"simulation_{weight:.3f}.npz")
        propagate(network, q=q, correlation=0.3).save(out / f"theory_{weight:.3f}.npz")
    return out
