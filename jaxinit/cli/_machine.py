"""The options of commands that run ensembles: on which devices and processes, and from which folder to go on."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxinit.cli._output import Output


def add(own: argparse.ArgumentParser, batch: bool = True) -> None:
    """Add the options to the parser of a command; `batch`: whether it lets seeds be computed together."""
    group = own.add_argument_group("machine")
    group.add_argument(
        "--resume", metavar="DIR", help="keep finished chunks of seeds in DIR; the same command goes on from them"
    )  # fmt: skip
    group.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="use N devices in each process (a CPU is divided into N); all by default",
    )
    if batch:
        group.add_argument("--batch", type=int, metavar="N", help="seeds computed together")
    group.add_argument(
        "--chunk", type=int, metavar="N", help="seeds a device between two reports of progress"
    )
    group.add_argument(
        "--distributed", nargs="?", const="auto", type=_address, metavar="HOST:PORT,COUNT,INDEX",
        help="share the seeds among the processes of this job: start the same command in each; on SLURM, Open MPI, "
        "Kubernetes and Cloud TPU nothing more is needed, elsewhere name process 0, how many there are, and which "
        "this is, from 0",
    )  # fmt: skip


def _address(text: str) -> Any:
    if text == "auto":
        return text
    parts = text.split(",")
    try:
        host, count, index = parts
        return host, int(count), int(index)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOST:PORT,COUNT,INDEX, as in 10.0.0.1:1234,4,0"
        ) from None


def begin(options: argparse.Namespace, out: Output) -> bool:
    """Make devices, join the other processes; whether this process is the one that shows and writes results."""
    import jax

    from jaxinit import ensemble

    divided = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if options.devices is not None and options.devices > 0 and not divided:
        with contextlib.suppress(RuntimeError):  # JAX is in use already: there are as many as there are
            jax.config.update("jax_num_cpu_devices", options.devices)
    if options.distributed is not None:
        _keep_stdout()
        ensemble.initialize(*(() if options.distributed == "auto" else options.distributed))
    leads = jax.process_index() == 0
    if not leads:
        out.quiet, out.as_json = True, False
    return leads


def _keep_stdout() -> None:
    """Send to stderr what libraries below Python (Gloo) print to stdout: it is for results alone."""
    sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):  # a stdout that is no file of the system
        if sys.stdout.fileno() == 1:
            encoding, errors = sys.stdout.encoding, sys.stdout.errors
            sys.stdout = os.fdopen(os.dup(1), "w", encoding=encoding, errors=errors)
            os.dup2(2, 1)


def keywords(options: argparse.Namespace, name: str | None = None) -> dict[str, Any]:
    """What `simulate`, `sweep` and `probe` take; with `name`, the folder of that name within --resume."""
    folder = options.resume
    if folder is not None and name is not None:
        folder = Path(folder) / name
    devices = options.devices
    if devices is not None and options.distributed is not None:
        import jax

        from jaxinit._core import checks

        here = [[d for d in jax.devices() if d.process_index == p] for p in range(jax.process_count())]
        fewest = min(map(len, here))
        if not 1 <= devices <= fewest:
            raise checks.bad(
                "--distributed", "devices", f"from 1 to {fewest}, the devices of a process", devices
            )
        devices = [d for own in here for d in own[:devices]]
    given = {"resume": folder, "devices": devices, "chunk": options.chunk}
    return given | ({"batch": options.batch} if hasattr(options, "batch") else {})
