"""`calibrate(method="lsuv")` on the small CNN that the public LSUV for PyTorch was timed on, and on its depth.

Five 3x3 convolutions of 64 channels with ReLU, mean over positions, a dense layer; 64 images of 3x32x32; float32. The
parameters are given (a torch module is drawn when it is made, too). "cold" is the first call, with tracing and
compilation, every round with a module of another class and with nothing compiled but what a model of one small layer
needs; "alike" the first call with one more module of the kind, which is traced and finds its programs compiled; "warm"
the same call again, as for the next draw or batch. CPU seconds are those of all threads. Every layer's standard
deviation afterwards is measured by the model itself.

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
    for start in ("own", "orthonormal"):
        for layers in params:
            times: dict[str, list[Any]] = {"cold": [], "alike": [], "warm": []}
            for _ in range(rounds):
                jax.clear_caches()
                ji.calibrate(nn.Dense(2), x[:, 0, 0], key, start=start)  # what every first call compiles

                def call(model: Any, layers: int = layers, start: str = start) -> Any:
                    return ji.calibrate(model, x, key, params=params[layers], start=start)

                model = fresh(layers)
                times["cold"].append(timed(lambda model=model: call(model)))
                model = fresh(layers)
                times["alike"].append(timed(lambda model=model: call(model)))
                times["warm"].append(timed(lambda model=model: call(model)))
            record = call(model)[1]
            off = max(abs(s - 1) for s in spread(model, times["warm"][-1][2], x))
            told = ", ".join(
                f"{name} {min(t[0] for t in each):.2f} s ({min(t[1] for t in each):.2f} CPU s)"
                for name, each in times.items()
            )
            print(
                f"{start:12s}{layers:3d} convolutions: {told}; {record.evaluations} evaluations, every rms within "
                f"{off:.1e} of 1",
                flush=True,
            )


if __name__ == "__main__":
    main()
