"""`jaxinit simulate`: signal and gradient, layer by layer, over many seeds."""

from __future__ import annotations

import argparse
from typing import Any

from jaxinit.cli import _command, _machine, _options
from jaxinit.cli._output import Output

_EPILOG = """\
examples:
  jaxinit simulate --depth 50 --width 512 --init he,xavier
  jaxinit simulate --depth 100 --activation tanh --weight-variance 0.8,1,1.5 --bias-variance 0.05
  jaxinit simulate --init 'normal(stddev=0.05),orthogonal(1.41)' --seeds 256 --out runs/first
  jaxinit simulate --depth 60 --init he,xavier --dtype float16
  jaxinit simulate --depth 1000 --seeds 100000 --devices 2 --resume runs/deep
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "simulate",
        "signal and gradient of a deep network at initialization, layer by layer",
        "Draw a fully connected network for many seeds and measure, layer by layer, its signal, its gradient, the "
        "correlation of two inputs and the dead units.",
        _EPILOG,
    )
    network = own.add_argument_group("network")
    network.add_argument("--depth", type=int, default=30, metavar="L", help="number of layers (default: 30)")
    network.add_argument("--width", type=int, default=256, metavar="N", help="units a layer (default: 256)")
    network.add_argument("--activation", default="relu", metavar="NAME", help="(default: relu)")
    law = network.add_mutually_exclusive_group()
    law.add_argument(
        "--init", metavar="NAME[,NAME...]", help="initializers to lay side by side (default: he,xavier)"
    )
    law.add_argument(
        "--weight-variance",
        type=_options.numbers,
        metavar="V[,V...]",
        help="weights of variance V / fan_in instead",
    )
    network.add_argument("--bias-variance", type=float, default=0.0, metavar="V", help="(default: 0)")
    network.add_argument(
        "--ensemble", default="gaussian", metavar="LAW",
        help="gaussian or orthogonal, with --weight-variance (default: gaussian)",
    )  # fmt: skip
    network.add_argument("--q", type=float, default=1.0, help="mean square entry of the inputs (default: 1)")
    network.add_argument(
        "--correlation", type=float, default=0.5, metavar="C", help="of the two inputs (default: 0.5)"
    )
    network.add_argument(
        "--dtype", metavar="NAME",
        help="compute as a model of this dtype does: bfloat16, float16, float32 (default: float32 of unlimited range)",
    )  # fmt: skip
    _command.add_simulation(own)
    _machine.add(own)
    own.set_defaults(run=run_command)


def _networks(options: argparse.Namespace) -> dict[str, Any]:
    from jaxinit.network import Network

    common = {"bias_variance": options.bias_variance, "ensemble": options.ensemble}
    shape = (options.depth, options.width, options.activation)
    if options.weight_variance is not None:
        return {f"σ²={v:g}": Network(*shape, weight_variance=v, **common) for v in options.weight_variance}
    found = _options.initializers(options.init or "he,xavier")
    return {label: Network(*shape, initializer=draw, **common) for label, draw in found.items()}


def run_command(options: argparse.Namespace, out: Output) -> None:
    """Run `jaxinit simulate`."""
    from jaxinit.cli import _results
    from jaxinit.simulate import simulate

    leads = _machine.begin(options, out)
    records = {}
    for label, network in _networks(options).items():
        with out.progress(f"simulate {label}") as progress:
            records[label] = simulate(
                network, options.seeds, q=options.q, correlation=options.correlation, dtype=options.dtype,
                progress=progress,
                **_command.simulation(options), **_machine.keywords(options, _results.file_name(label)),
            )  # fmt: skip
    if not leads:
        return
    _results.show_depth(out, records)
    verdicts = _results.show_verdicts(out, records)
    files: list[Any] = []
    if options.out:
        title = f"{options.activation} network, {options.depth} layers of {options.width} units"
        page, files = _results.write(options.out, records, title=title, rerun=out.rerun)
        out.path(page)
    rows = {label: _results.propagation_json(record) for label, record in records.items()}
    out.result({"command": "simulate", "verdicts": verdicts, "records": rows, "files": files})
