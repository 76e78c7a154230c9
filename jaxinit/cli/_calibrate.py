"""`jaxinit calibrate`: initial parameters with which the signal of a model of yours survives."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxinit.cli import _command, _model, _options
from jaxinit.cli._output import Output
from jaxinit.cli._probe import FOUND

#: As `jaxinit.calibrate(method=...)` names them; stated here so that --help needs no JAX (a test compares).
METHODS = ("lsuv", "analytic", "critical", "gradient")

_EPILOG = """\
examples:
  jaxinit calibrate mypackage.models:Classifier --input 64x784 --out calibrated
  jaxinit calibrate model.py:net --input images.npy --orthonormal --target preserve
  jaxinit calibrate model.py:make_decoder --input 4x128:int:50257 --method critical --exclude 'head/*' --json

The name is what `jaxinit probe` takes. --out writes parameters.npz (one array a path), the record and a page.
Exit code 3: --fail-on left was given and a site could not be calibrated.
"""


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    own = _command.add(
        commands,
        common,
        "calibrate",
        "scale the initial parameters of your own Flax model so that its signal survives",
        "Draw a model, scale each of its layers until the signal (or its gradient) is as it should be, and say what "
        "was changed, what could not be, and why.",
        _EPILOG,
    )
    _model.add(own)
    own.add_argument("--method", choices=METHODS, default="lsuv", help="(default: lsuv)")
    own.add_argument(
        "--target", default="unit", metavar="T",
        help="unit, preserve, or a second moment such as 0.5 (default: unit); with --method critical also chi_1 or "
        "update_ratio",
    )  # fmt: skip
    own.add_argument("--orthonormal", action="store_true", help="begin with orthonormal kernels")
    for name, what in (("include", "scale these only"), ("exclude", "leave these as they are")):
        own.add_argument(
            f"--{name}", type=_options.split, metavar="PATTERN[,...]",
            help=f"{what}: patterns of sites or parameters such as 'encoder/**'",
        )  # fmt: skip
    own.add_argument(
        "--scales", type=_options.split, metavar="PATTERN[,...]",
        help="parameters that multiply the signal entry by entry, to be sites too: '**/gamma'",
    )  # fmt: skip
    own.add_argument(
        "--params",
        metavar="FOLDER",
        help="begin with the parameters in this Orbax checkpoint instead of a draw",
    )
    own.add_argument("--train", action="store_true", help="tell the model that it is being trained")
    own.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    own.add_argument(
        "--fail-on", choices=("left",), help="exit with code 3 if a site could not be calibrated"
    )
    own.set_defaults(run=run_command)


def _target(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def run_command(options: argparse.Namespace, out: Output) -> int:
    """Run `jaxinit calibrate`; returns the exit code."""
    import dataclasses

    import jax

    from jaxinit.adapt import calibrate
    from jaxinit.cli import _results

    label = options.model.rpartition(":")[2]
    with out.progress(f"calibrate {label}"):
        params, found = calibrate(
            _model.load(options.model), _model.arguments(options), jax.random.key(options.seed),
            method=options.method, target=_target(options.target), train=options.train,
            start="orthonormal" if options.orthonormal else "own", params=options.params,
            include=options.include, exclude=options.exclude, scales=options.scales,
        )  # fmt: skip
    found = dataclasses.replace(found, label=label)
    out.say(found)
    files: list[Any] = []
    if options.out:
        page, files = _results.write(
            options.out, {label: found}, title=f"{label}, calibrated", rerun=out.rerun
        )
        files = [_write(Path(options.out) / "parameters.npz", params), *files]
        out.path(page)
    out.result(
        {
            "command": "calibrate", "ok": found.ok, "counts": found.counts, "figures": found.figures,
            "evaluations": found.evaluations, "sites": found.rows(), "files": files,
        }
    )  # fmt: skip
    return FOUND if options.fail_on and not found.ok else 0


def _write(path: Path, params: Any) -> Path:
    """The parameters, one array a path; of 16 bits ("bfloat16") as float32, which holds them exactly."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from jaxinit._core.files import write_arrays

    if isinstance(params, nnx.Module):
        params = nnx.to_pure_dict(nnx.state(params, nnx.Param))
    arrays = {}
    for where, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in where)
        arrays[name] = np.asarray(leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf)
    write_arrays(path, arrays)
    return path
