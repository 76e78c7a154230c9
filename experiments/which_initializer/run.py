"""What 30 layers of each (activation, initializer) pair do to the signal, its gradient and two inputs' correlation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import jaxinit as ji
from jaxinit import initializers
from jaxinit.adapt import critical

FULL = {"width": 256, "depth": 30, "seeds": 32}
TINY = {"width": 32, "depth": 6, "seeds": 4}
WANTED = ("log_second_moment", "log_grad_second_moment", "correlation")


def pairs() -> Iterator[tuple[str, str, Any, float, str]]:
    """Activation, how its initializer is written, the initializer, bias variance, ensemble."""
    plain = {
        "relu": ["he_normal()", "lecun_normal()"],
        "tanh": ["lecun_normal()", "scaled_for('tanh')", "variance_scaling((5 / 3) ** 2)"],
        "gelu": ["lecun_normal()", "he_normal()", "scaled_for('gelu')"],
        "silu": ["he_normal()", "scaled_for('silu')"],
        "selu": ["lecun_normal()", "variance_scaling(0.75**2)"],
        "sigmoid": ["glorot_normal()", "scaled_for('sigmoid')"],
        "softplus": ["scaled_for('softplus')"],
        "identity": ["lecun_normal()"],
        "leaky_relu": ["he_normal(negative_slope=0.01)"],
        "mish": ["scaled_for('mish')"],
    }
    orthogonal = {"relu": "orthogonal(2**0.5)", "tanh": "orthogonal(1.05)", "identity": "orthogonal()"}
    edge = {"tanh": 0.05}  # the critical points of gelu and silu are unstable: critical() refuses them
    for activation, calls in plain.items():
        for call in calls:
            yield activation, call, eval(call, vars(initializers)), 0.0, "gaussian"
        if activation in edge:
            bias = edge[activation]
            yield (
                activation,
                f"critical('{activation}', {bias})",
                critical(activation, bias)[0],
                bias,
                "gaussian",
            )
        if activation in orthogonal:
            call = orthogonal[activation]
            yield activation, call, eval(call, vars(initializers)), 0.0, "orthogonal"


def measure(record: ji.Propagation) -> dict[str, float]:
    """Typical (geometric mean over seeds) sizes, and the correlation, at the last layer."""
    forward = np.asarray(record.log_second_moment.mean)[:, 0]
    backward = np.asarray(record.log_grad_second_moment.mean)[:, 0]
    steps = len(forward) - 1
    return {
        "second moment": float(np.exp(forward[-1])),
        "signal a layer": float(np.exp((forward[-1] - forward[0]) / steps)),
        "gradient a layer": float(np.exp((backward[0] - backward[-1]) / steps)),
        "correlation": float(np.asarray(record.correlation.mean)[-1, 0]),
    }


def main(out: Path, *, tiny: bool = False) -> Path:
    size = TINY if tiny else FULL
    shape = (size["width"], size["width"])
    rows = []
    some = list(pairs())[:: 8 if tiny else 1]
    for number, (activation, call, init, bias, ensemble) in enumerate(some):
        # an iid law gives the entries' spread, an orthogonal one the factor of the matrix
        spread = float(init.law(shape).stddev) ** 2
        variance = spread if ensemble == "orthogonal" else spread * size["width"]
        network = ji.Network(
            size["depth"],
            size["width"],
            activation,
            weight_variance=variance,
            bias_variance=bias,
            ensemble=ensemble,
        )
        record = ji.simulate(network, size["seeds"], q=1.0, correlation=0.5, record=WANTED)
        record.save(out / f"{number:02d}_{activation}.npz")
        rows.append({"activation": activation, "initializer": call, **measure(record)})
        (out / "table.json").write_text(json.dumps({"size": size, "rows": rows}, indent=1))
    return out


def outcome(out: Path) -> list[dict[str, object]]:
    """The rows of the table."""
    rows = json.loads((out / "table.json").read_text())["rows"]
    return [{**row, "initializer": f"`{row['initializer']}`"} for row in rows]
