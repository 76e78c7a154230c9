"""`jaxinit sweep`: signal and gradient over a grid of networks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxinit.cli import _command, _machine, _options
from jaxinit.cli._output import Output

_EPILOG = """\
examples:
  jaxinit sweep --activation tanh,relu --weight-variance 0.5:3:11 --bias-variance 0.05
  jaxinit sweep --depth 10,30,100 --width 64,256 --init he,xavier,orthogonal --seeds 256 --out runs/sweep
  jaxinit sweep --depth 200 --weight-variance 1:2:101 --resume runs/fine --json

Every option that takes a list is an axis of the grid. LOW:HIGH:COUNT is a range of evenly spaced numbers.
The record of all points is DIR/sweep.npz and its heat maps are DIR/sweep.png; of single points figures and report show
at most 8, evenly spaced.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "sweep",
        "signal and gradient over a grid of depths, widths, activations, variances or initializers",
        "Simulate fully connected networks at every point of a grid, over the same seeds. Points that differ only in "
        "numbers share one compiled program.",
        _EPILOG,
    )
    grid = own.add_argument_group("grid")
    grid.add_argument(
        "--depth", type=_options.integers, default=[30], metavar="L[,L...]", help="(default: 30)"
    )
    grid.add_argument(
        "--width", type=_options.integers, default=[256], metavar="N[,N...]", help="(default: 256)"
    )
    grid.add_argument("--activation", default="relu", metavar="NAME[,NAME...]", help="(default: relu)")
    law = grid.add_mutually_exclusive_group()
    law.add_argument("--init", metavar="NAME[,NAME...]", help="initializers")
    law.add_argument(
        "--weight-variance", type=_options.values, metavar="V[,V...]",
        help="weights of variance V / fan_in (default: 1,1.5,2,2.5,3)",
    )  # fmt: skip
    grid.add_argument(
        "--bias-variance", type=_options.values, default=[0.0], metavar="V[,V...]", help="(default: 0)"
    )
    grid.add_argument(
        "--ensemble", default="gaussian", metavar="LAW[,LAW]",
        help="gaussian or orthogonal, with --weight-variance (default: gaussian)",
    )  # fmt: skip
    grid.add_argument(
        "--q", type=_options.values, default=[1.0], metavar="Q[,Q...]",
        help="mean square entry of the inputs (default: 1)",
    )  # fmt: skip
    grid.add_argument(
        "--correlation", type=_options.values, default=[0.5], metavar="C[,C...]",
        help="of the two inputs (default: 0.5)",
    )  # fmt: skip
    grid.add_argument(
        "--dtype", metavar="NAME[,NAME...]",
        help="compute as models of these dtypes do: bfloat16, float16, float32 (default: float32 of unlimited range)",
    )  # fmt: skip
    _command.add_simulation(own)
    _machine.add(own)
    own.set_defaults(run=run_command)


def _grid(options: argparse.Namespace) -> dict[str, Any]:
    """The axes that have more than one value, and the constants."""
    lists: dict[str, Any] = {
        "activation": _options.split(options.activation), "depth": options.depth, "width": options.width,
        "bias_variance": options.bias_variance, "q": options.q, "correlation": options.correlation,
    }  # fmt: skip
    if options.init is not None:
        found = _options.initializers(options.init)
        lists = {"initializer": found if len(found) > 1 else list(found.values()), **lists}
    else:
        variances = options.weight_variance or [1.0, 1.5, 2.0, 2.5, 3.0]
        lists = {"weight_variance": variances, "ensemble": _options.split(options.ensemble), **lists}
    if options.dtype is not None:
        lists["dtype"] = _options.split(options.dtype)
    return {name: values if len(values) > 1 else values[0] for name, values in lists.items()}


def run_command(options: argparse.Namespace, out: Output) -> None:
    """Run `jaxinit sweep`."""
    from jaxinit.cli import _results
    from jaxinit.report import report
    from jaxinit.simulate import sweep

    grid = _grid(options)
    leads = _machine.begin(options, out)
    with out.progress("sweep") as progress:
        record = sweep(
            grid, options.seeds, progress=progress, **_command.simulation(options), **_machine.keywords(options),
        )  # fmt: skip
    if not leads:
        return
    out.say(record.table(max_rows=48))
    files: list[Any] = []
    if options.out:
        title = record.label.capitalize()
        records = {"sweep": record, **record.propagations(_results.POINTS)}
        files = _results.draw(Path(options.out), records)
        page = report(records, Path(options.out) / "report.html", title=title, rerun=out.rerun)
        files = [record.save(Path(options.out) / "sweep.npz"), *files, page]
        out.path(page)
    points = [_results.propagation_json(point) for point in record.propagations().values()]
    out.result({"command": "sweep", "axes": record.axes, "points": points, "files": files})
