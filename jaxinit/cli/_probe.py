"""`jaxinit probe`: what happens in a model of yours at initialization, and what to change."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from jaxinit.cli import _machine, _options
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
    own = commands.add_parser(
        "probe",
        parents=[common],
        help="signal and gradient of your own Flax model, module by module, and what is wrong with it",
        description="Draw a model for many seeds, measure every module's output and gradient, and say what is "
        "wrong, where, how surely, and what to write instead.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.add_argument("model", metavar="MODULE:NAME", help="package.module:name, or path/to/file.py:name")
    own.add_argument(
        "--input", required=True, type=_inputs, metavar="SHAPE[:int:N][,...]",
        help="arguments of the model: 32x784 draws N(0, 1) for every seed, 4x128:int:1000 draws integers below 1000 "
        "once, a file.npy holds an array; the first axis counts examples",
    )  # fmt: skip
    own.add_argument("--seeds", type=_options.seeds, default=16, metavar="N", help="(default: 16)")
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
        "--fail-on", choices=("error", "warning", "note"), help="exit with code 3 if there is such a finding, or worse"
    )  # fmt: skip
    own.add_argument("--rows", type=int, default=40, metavar="N", help="rows of the table (default: 40)")
    _machine.add(own, batch=False)
    own.set_defaults(run=run_command)


def _inputs(text: str) -> list[str]:
    parts = _options.split(text)
    if not all(parts):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty part: write shapes such as 32x784")
    return parts


def _argument(text: str, number: int) -> Any:
    """One argument of the model."""
    import jax
    import numpy as np

    if text.endswith(".npy"):
        return np.load(text, allow_pickle=False)
    shape, *kind = text.split(":")
    try:
        dims = tuple(int(n) for n in shape.split("x"))
        if min(dims) < 1 or (kind and (kind[0] != "int" or len(kind) != 2 or int(kind[1]) < 1)):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"--input {text!r}: write a shape such as 32x784, integers as 4x128:int:1000, or a file.npy"
        ) from None
    if kind:
        return np.random.default_rng(number).integers(0, int(kind[1]), dims, dtype=np.int32)
    return jax.ShapeDtypeStruct(dims, np.float32)


def load_model(text: str) -> Any:
    """The object that `package.module:name` or `file.py:name` stands for, made if it is a factory of no arguments."""
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ValueError(f"{text!r}: write MODULE:NAME, as in mypackage.models:Classifier or model.py:net")
    module = _from_file(Path(place)) if place.endswith(".py") else _imported(place)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            from jaxinit._core import checks

            known = [n for n in vars(value) if not n.startswith("_")]
            raise ValueError(f"{place!r} has no {part!r}. {checks.nearest(part, known)}")
        value = getattr(value, part)
    return value() if _takes_nothing(value) else value


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where dataclasses look for their annotations
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _imported(place: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and place.startswith(error.name):
            raise ValueError(
                f"no module {place!r}: run this in the folder that holds it, or name a file, as in model.py:net"
            ) from None
        raise
    finally:
        sys.path.pop(0)


def _takes_nothing(value: Any) -> bool:
    """Whether it is a function or class that is called without arguments."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return False
    try:
        wanted = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return False
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not inspect.Parameter.empty or p.kind in variable for p in wanted)


def run_command(options: argparse.Namespace, out: Output) -> int:
    """Run `jaxinit probe`; returns the exit code."""
    from jaxinit.cli import _results
    from jaxinit.diagnose import diagnose
    from jaxinit.probe import probe

    leads = _machine.begin(options, out)
    arguments = tuple(_argument(text, n) for n, text in enumerate(options.input))
    sites = options.sites
    if sites is not None and sites not in ("modules", "ops", "all"):
        sites = _options.split(sites)
    model = load_model(options.model)
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
