"""`jaxinit compare`: train every initializer on real data."""

from __future__ import annotations

import argparse
from typing import Any

from jaxinit.cli import _command, _options
from jaxinit.cli._output import Output

_EPILOG = """\
examples:
  jaxinit compare --data digits --init he,xavier --depth 20 --width 64
  jaxinit compare --data mnist.npz --init he,xavier,orthogonal --steps 2000 --out runs/mnist
  jaxinit compare --data mnist.npz --limit 10000 --learning-rates 0.001,0.01,0.1 --resume runs/mnist.part

An .npz holds x_train, y_train, x_test and y_test. Nothing is downloaded.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "compare",
        "what the initializer does to training, on real data",
        "Train a fully connected network from every initializer, at every learning rate, from every seed. The best "
        "learning rate of each initializer is chosen on validation data; figures are on test data.",
        _EPILOG,
    )
    what = own.add_argument_group("what")
    what.add_argument(
        "--data", default="digits", metavar="NAME|FILE", help="digits, or an .npz (default: digits)"
    )
    what.add_argument("--limit", type=int, metavar="N", help="use at most N examples of the data")
    what.add_argument("--init", default="he,xavier", metavar="NAME[,NAME...]", help="(default: he,xavier)")
    what.add_argument("--depth", type=int, default=20, metavar="L", help="weight layers (default: 20)")
    what.add_argument("--width", type=int, default=64, metavar="N", help="units a hidden layer (default: 64)")
    what.add_argument("--activation", default="relu", metavar="NAME", help="(default: relu)")
    run = own.add_argument_group("run")
    run.add_argument(
        "--optimizer", default="momentum", metavar="NAME", help="sgd, momentum, adam, ... (default: momentum)"
    )
    _command.add_seeds(run, 5)
    run.add_argument("--steps", type=int, default=500, metavar="N", help="of each run (default: 500)")
    run.add_argument("--batch-size", type=int, default=64, metavar="N", help="(default: 64)")
    run.add_argument(
        "--learning-rates", type=_options.numbers, default=[0.001, 0.003, 0.01, 0.03], metavar="R[,R...]",
        help="(default: 0.001,0.003,0.01,0.03)",
    )  # fmt: skip
    run.add_argument("--resume", metavar="FILE", help="keep finished runs in FILE and go on from it")
    own.set_defaults(run=run_command)


def run_command(options: argparse.Namespace, out: Output) -> None:
    """Run `jaxinit compare`."""
    from jaxinit.cli import _results
    from jaxinit.compare import compare, load_data
    from jaxinit.models import MLP

    found = _options.initializers(options.init)
    shape = f"{options.depth} layers of {options.width}, {options.activation}"
    data = load_data(options.data, limit=options.limit)
    model = MLP(options.depth, options.width, data.outputs, options.activation)
    with out.progress(f"train {len(found)} initializers on {data.name}") as progress:
        record = compare(
            model, found, data, options.optimizer, seeds=options.seeds, learning_rates=options.learning_rates,
            steps=options.steps, batch_size=options.batch_size, resume=options.resume, progress=progress,
            label=f"{shape}, {data.name}, {options.optimizer}",
        )  # fmt: skip
    out.say(record)
    verdicts = _results.show_verdicts(out, {"training": record})
    files: list[Any] = []
    if options.out:
        title = "Training: " + ", ".join(found) + f" on {data.name}"
        page, files = _results.write(options.out, {"training": record}, title=title, rerun=out.rerun)
        out.path(page)
    result = _results.convergence_json(record)
    out.result({"command": "compare", "verdicts": verdicts, "record": result, "files": files})
