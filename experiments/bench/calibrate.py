"""`calibrate(method="lsuv")` on the small CNN that the public LSUV for PyTorch was timed on, and on its depth.

Five 3x3 convolutions of 64 channels with ReLU, mean over positions, a dense layer; 64 images of 3x32x32; float32. The
parameters are given (a torch module is drawn when it is made, too). "cold" is the first call, with tracing and
compilation, every round with a module of another class, so that nothing is remembered; "warm" the same call again, as
for the next draw or batch. CPU seconds are those of all threads. Every layer's standard deviation afterwards is
measured by the model itself.

    python experiments/bench/calibrate.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import jaxinit as ji


def fresh(layers: int) -> nn.Module:
    """A model that nothing has been compiled for: its class is new."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for n in range(layers):
                x = nn.relu(nn.Conv(64, (3, 3), name=f"conv_{n}")(x))
            return nn.Dense(10, name="head")(x.mean(axis=(1, 2)))

    return Net()


def spread(model: nn.Module, params: Any, x: Any) -> list[float]:
    """Root mean square of what each layer returns."""
    _, seen = model.apply({"params": params}, x, capture_intermediates=True)
    found = seen["intermediates"]
    return [
        float(np.sqrt(np.mean(np.square(found[n]["__call__"][0])))) for n in sorted(found) if n != "__call__"
    ]


def timed(call: Any) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = jax.block_until_ready(call()[0])
    return time.perf_counter() - wall, time.process_time() - cpu, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    key = jax.random.key(0)
    x = jax.random.normal(key, (64, 32, 32, 3))
    params = {n: jax.block_until_ready(fresh(n).init(key, x))["params"] for n in (5, 10)}
    ji.calibrate(
        nn.Dense(2), x[:, 0, 0], key
    )  # imports, and the small programs that every first call compiles
    for start in ("own", "orthonormal"):
        for layers in params:
            cold, warm = [], []
            for _ in range(rounds):
                model = fresh(layers)

                def call(model: Any = model, layers: int = layers, start: str = start) -> Any:
                    return ji.calibrate(model, x, key, params=params[layers], start=start)

                cold.append(timed(call))
                warm.append(timed(call))
            record = call()[1]
            off = max(abs(s - 1) for s in spread(model, warm[-1][2], x))
            print(
                f"{start:12s}{layers:3d} convolutions: cold {min(c[0] for c in cold):.2f} s "
                f"({min(c[1] for c in cold):.2f} CPU s), warm {min(w[0] for w in warm):.3f} s "
                f"({min(w[1] for w in warm):.2f} CPU s); {record.evaluations} evaluations, "
                f"every rms within {off:.1e} of 1",
                flush=True,
            )


if __name__ == "__main__":
    main()
