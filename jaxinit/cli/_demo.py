"""`jaxinit demo`: which initializer keeps a deep ReLU network alive, and what that does to training.

The claim on trial is that of He et al. (2015), "Delving deep into rectifiers", section 2.2: with ReLU,
Xavier's variance halves the signal at every layer, twice that variance keeps it, and a 30-layer network
trains only with the latter. Nothing is predicted here: the signal is measured over seeds, the training is run.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import Any

from jaxinit.cli import _command
from jaxinit.cli._output import Output

_EPILOG = """\
examples:
  jaxinit demo                       about two minutes on two cores; the report is demo/report.html
  jaxinit demo --quick               a small version, in half a minute
  jaxinit demo --seeds 256 --out d   more seeds for the signal
"""


@dataclasses.dataclass(frozen=True)
class Size:
    """What the demo runs: `seeds` networks for the signal, `runs` trainings of `steps` steps a rate."""

    depth: int = 30
    width: int = 128
    seeds: int = 64
    runs: int = 3
    steps: int = 300
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01)


QUICK = Size(width=64, seeds=16, runs=2, steps=100, learning_rates=(0.003, 0.01))


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "demo",
        "zeros, random, Xavier, He and orthogonal in a 30-layer ReLU network: signal, then training",
        "Measure what five initializers do to the signal and the gradient of a 30-layer ReLU network, train it from "
        "each on handwritten digits, and write a report.",
        _EPILOG,
    )
    _command.add_seeds(own, None, "64, for the signal")
    own.add_argument("--quick", action="store_true", help="smaller and faster, with wider error bars")
    own.set_defaults(run=run_command, out="demo")


def contestants() -> dict[str, Any]:
    """Label -> initializer, the same for the signal and for training."""
    from jaxinit import initializers as ji

    return {
        "zeros": ji.zeros(),
        "random": ji.normal(0.01),
        "xavier": ji.glorot_normal(),
        "he": ji.he_normal(),
        "orthogonal × √2": ji.orthogonal(math.sqrt(2.0)),
    }


def run_command(options: argparse.Namespace, out: Output) -> None:
    """Run `jaxinit demo`."""
    from jaxinit.cli import _results
    from jaxinit.compare import compare, load_data
    from jaxinit.models import MLP
    from jaxinit.network import Network
    from jaxinit.simulate import simulate

    size = QUICK if options.quick else Size()
    seeds = size.seeds if options.seeds is None else options.seeds
    data = load_data("digits")
    found = contestants()
    out.say(
        f"A ReLU network of {size.depth} layers of {size.width} units. First its signal and gradient at "
        f"initialization, over seeds; then training on handwritten digits ({len(data.x_train)} images, "
        f"SGD with momentum, {size.steps} steps, {size.runs} seeds, learning rates "
        f"{', '.join(f'{rate:g}' for rate in size.learning_rates)}).\n"
    )
    records: dict[str, Any] = {}
    for label, draw in found.items():
        with out.progress(f"simulate {label}") as progress:
            network = Network(size.depth, size.width, "relu", initializer=draw)
            records[label] = simulate(network, seeds, keep_seeds=True, progress=progress)
    _results.show_depth(out, records)

    with out.progress(f"train {len(found)} initializers") as progress:
        training = compare(
            MLP(size.depth, size.width, data.outputs), found, data, "momentum", seeds=size.runs,
            learning_rates=size.learning_rates, steps=size.steps, progress=progress,
            label=f"{size.depth} layers of {size.width}, relu, digits, momentum",
        )  # fmt: skip
    out.say(training)
    verdicts = _results.show_verdicts(out, {**records, "training": training})
    title = f"Which initializer keeps a {size.depth}-layer ReLU network alive?"
    page, files = _results.write(options.out, {**records, "training": training}, title=title, rerun=out.rerun)
    out.path(page)
    signal = {label: _results.propagation_json(record) for label, record in records.items()}
    result = {"command": "demo", "verdicts": verdicts, "signal": signal, "files": files}
    out.result(result | {"training": _results.convergence_json(training)})
