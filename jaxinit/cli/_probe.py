"""`jaxinit probe`: what happens in a model of yours at initialization, and what to change."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxinit.cli import _command, _machine, _model, _options
from jaxinit.cli._output import Output

_EPILOG = """\
examples:
  jaxinit probe mypackage.models:Classifier --input 32x784
  jaxinit probe model.py:make_decoder --input 4x128:int:50257 --seeds 4
  jaxinit probe model.py:net --input batch.npy --seeds 16 --fail-on warning --out probe
  jaxinit probe model.py:giant --input 1x16:int:50257 --seeds 1 --implicit --approximate

The name is a linen module, an nnx factory that takes `rngs`, a pair (init, apply), or a function of no arguments that
makes one of these. Exit code 3: --fail-on was given and there is such a finding.
"""

#: Findings at or above the severity of --fail-on.
FOUND = 3


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "probe",
        "signal and gradient of your own Flax model, module by module, and what is wrong with it",
        "Draw a model for many seeds, measure every module's output and gradient, and say what is wrong, where, how "
        "surely, and what to write instead. Inputs of N(0, 1) are drawn anew for every seed, integers once.",
        _EPILOG,
    )
    _model.add(own)
    _command.add_seeds(own, 16)
    own.add_argument(
        "--sites", metavar="WHICH", help="modules, ops, all, or patterns of names such as 'encoder/*'"
    )
    own.add_argument(
        "--implicit", action="store_true",
        help="form no weight matrix of a normal or orthogonal law: models larger than memory, exactly",
    )  # fmt: skip
    own.add_argument(
        "--approximate", action="store_true",
        help="with --implicit, take truncated normal and uniform weights as normal ones (error O(1/width))",
    )  # fmt: skip
    own.add_argument("--train", action="store_true", help="tell the model that it is being trained")
    own.add_argument("--forward-only", action="store_true", help="leave the gradients out")
    own.add_argument(
        "--fail-on", choices=("error", "warning", "likely", "note"),
        help="exit with code 3 if there is such a finding, or worse",
    )  # fmt: skip
    own.add_argument("--rows", type=int, default=40, metavar="N", help="rows of the table (default: 40)")
    _machine.add(own, batch=False)
    own.set_defaults(run=run_command)


def run_command(options: argparse.Namespace, out: Output) -> int:
    """Run `jaxinit probe`; returns the exit code."""
    from jaxinit.cli import _results
    from jaxinit.diagnose import diagnose
    from jaxinit.probe import probe

    leads = _machine.begin(options, out)
    arguments = _model.arguments(options)
    sites = options.sites
    if sites is not None and sites not in ("modules", "ops", "all"):
        sites = _options.split(sites)
    model = _model.load(options.model)
    label = options.model.rpartition(":")[2]
    with out.progress(f"probe {label}") as progress:
        record = probe(
            model, arguments, seeds=options.seeds, sites=sites, train=options.train,
            backward=not options.forward_only, progress=progress, approximate=options.approximate,
            weights="implicit" if options.implicit else "materialized",
            **_machine.keywords(options, _results.file_name(label)),
        )  # fmt: skip
    found = diagnose(record)
    code = FOUND if options.fail_on and found.at_least(options.fail_on) else 0
    if not leads:
        return code
    out.say(record.table(max_rows=options.rows))
    if found.findings:
        out.say(found.table())
    verdicts = _results.show_verdicts(out, {label: record})
    files: list[Any] = []
    if options.out:
        page, files = _results.write(
            options.out, {label: record}, title=f"{label} at initialization", rerun=out.rerun
        )
        files = [found.save(Path(options.out) / "diagnosis.npz"), *files]
        out.path(page)
    out.result(
        {
            "command": "probe", "verdicts": verdicts, "findings": found.rows(),
            "records": {label: _results.propagation_json(record)}, "files": files,
        }
    )  # fmt: skip
    return code
