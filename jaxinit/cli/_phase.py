"""`jaxinit phase`: order, chaos and the edge between them, from mean-field theory."""

from __future__ import annotations

import argparse
from typing import Any

from jaxinit.cli import _command
from jaxinit.cli._output import Output

_EPILOG = """\
examples:
  jaxinit phase tanh --out phase
  jaxinit phase erf --weight-variance 0.5 4 --bias-variance 0 0.5 --points 60
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "phase",
        "the mean-field phase diagram of an activation, with its edge of chaos",
        "Fixed points of the length and correlation maps over a grid of weight and bias variances: where gradients "
        "vanish (ordered), explode (chaotic), and the critical line between.",
        _EPILOG,
    )
    own.add_argument("activation", metavar="NAME", help="an activation of the catalogue, such as tanh")
    own.add_argument(
        "--weight-variance", type=float, nargs=2, default=(0.25, 4.0), metavar=("LOW", "HIGH"),
        help="(default: 0.25 4)",
    )  # fmt: skip
    own.add_argument(
        "--bias-variance",
        type=float,
        nargs=2,
        default=(0.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="(default: 0 1)",
    )
    own.add_argument("--points", type=int, default=100, metavar="N", help="grid points a side (default: 100)")
    own.set_defaults(run=run_command)


def run_command(options: argparse.Namespace, out: Output) -> None:
    """Run `jaxinit phase`."""
    import numpy as np

    from jaxinit._core import checks
    from jaxinit.cli import _results
    from jaxinit.meanfield import phase_diagram

    points = checks.integer("phase", "points", options.points, at_least=2)
    axes = []
    for name in ("weight_variance", "bias_variance"):
        low, high = getattr(options, name)
        if not low < high:
            raise checks.bad("phase", name, "LOW HIGH with LOW below HIGH", f"{low:g} {high:g}")
        axes.append(np.linspace(low, high, points))
    record = phase_diagram(options.activation, *axes)
    out.say(repr(record))
    out.say("The edge of chaos within the grid:")
    out.say(_edge(record))
    files: list[Any] = []
    if options.out:
        title = f"Phase diagram of {record.activation}"
        page, files = _results.write(options.out, {record.label: record}, title=title, rerun=out.rerun)
        out.path(page)
    out.result({"command": "phase", "rows": record.rows(), "files": files})


def _edge(record: Any) -> Any:
    """The critical line as a table, at most ten points of it."""
    import numpy as np
    from rich.table import Table

    table = Table()
    for title in ("σb²", "critical σw²"):
        table.add_column(title, justify="right")
    weights, biases = record.critical_weight_variance, record.critical_bias_variance
    even: list[float] = []
    if len(biases):
        even = np.linspace(biases.min(), biases.max(), 10).tolist()
    for i in sorted({int(np.argmin(np.abs(biases - b))) for b in even}):
        table.add_row(f"{biases[i]:.4g}", f"{weights[i]:.5g}")
    return table
