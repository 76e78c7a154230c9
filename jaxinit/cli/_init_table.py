"""`jaxinit init-table`: which initializer each parameter of a model really got."""

from __future__ import annotations

import argparse
from typing import Any

from jaxinit.cli import _command, _model
from jaxinit.cli._output import Output
from jaxinit.cli._probe import FOUND

_EPILOG = """\
examples:
  jaxinit init-table mypackage.models:Classifier --input 32x784
  jaxinit init-table model.py:make_decoder --input 4x128:int:50257 --seed 3 --out parameters
  jaxinit init-table model.py:net --input 1x64 --fail-on mismatch --plain

The name is what `jaxinit probe` takes; nnx models need no --input. Exit code 3: --fail-on mismatch was given and the
values of a parameter are not of the standard deviation that its module asked for.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "init-table",
        "which initializer each parameter of a model got: asked, and told from the drawn values",
        "Draw a model once and tell, of each parameter, its law, its standard deviation and the named scheme that "
        "matches, beside what its module asked for.",
        _EPILOG,
    )
    _model.add(own, required=False)
    own.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    own.add_argument(
        "--fail-on", choices=("mismatch",), help="exit with code 3 if a parameter is not as asked"
    )
    own.set_defaults(run=run_command)


def run_command(options: argparse.Namespace, out: Output) -> int:
    """Run `jaxinit init-table`; returns the exit code."""
    import dataclasses

    import jax
    import numpy as np

    from jaxinit.adapt import init_table
    from jaxinit.cli import _results

    rng = np.random.default_rng(options.seed)
    inputs = tuple(
        rng.standard_normal(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x
        for x in _model.arguments(options)
    )
    label = options.model.rpartition(":")[2]
    model = _model.load(options.model)
    found = init_table(model, inputs or None, jax.random.key(options.seed))
    found = dataclasses.replace(found, label=f"initial parameters of {label}")
    out.say(found)
    files: list[Any] = []
    if options.out:
        page, files = _results.write(
            options.out, {label: found}, title=f"Initial parameters of {label}", rerun=out.rerun
        )
        out.path(page)
    wrong = [row.path for row in found.wrong()]
    out.result({"command": "init-table", "parameters": found.rows(), "wrong": wrong, "files": files})
    return FOUND if options.fail_on and wrong else 0
