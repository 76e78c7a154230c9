"""Singular values of deep tanh networks' Jacobians: Gaussian against orthogonal weights, theory and simulation."""

from __future__ import annotations

from pathlib import Path

import jaxinit as ji
from jaxinit import spectra
from jaxinit.meanfield import critical

BIAS = 0.0025
FULL = {"width": 300, "depths": (4, 16, 64), "seeds": 4, "isometry": (1, 4, 16, 64, 256, 1024)}
TINY = {"width": 24, "depths": (3,), "seeds": 2, "isometry": (4,)}


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    point = critical("tanh", BIAS)[0]
    for ensemble in ("gaussian", "orthogonal"):
        for depth in size["depths"]:
            found = spectra.density(
                "tanh", depth, point.weight_variance, BIAS, ensemble=ensemble, output="preactivations"
            )
            found.save(out / f"{ensemble}_{depth}_theory.npz")
            network = ji.Network(
                depth, size["width"], "tanh", weight_variance=point.weight_variance, bias_variance=BIAS,
                ensemble=ensemble,
            )  # fmt: skip
            run = ji.simulate(
                network, size["seeds"], q=(point.q - BIAS) / point.weight_variance, backward=False,
                record=["second_moment"], jacobian=True,
            )  # fmt: skip
            run.save(out / f"{ensemble}_{depth}_simulation.npz")
        for depth in size["isometry"]:
            found = spectra.density(
                "tanh", depth, point.weight_variance, BIAS, ensemble=ensemble, points=[1.0]
            )
            found.save(out / f"{ensemble}_{depth}_summary.npz")
    for depth in size["isometry"]:  # orthogonal, q* falling as 1 / sqrt(depth)
        near = critical("tanh", q=0.25 / depth**0.5)[0]
        found = spectra.density(
            "tanh",
            depth,
            near.weight_variance,
            near.bias_variance,
            ensemble="orthogonal",
            q=near.q,
            points=[1.0],
        )
        found.save(out / f"isometric_{depth}_summary.npz")
    return out
