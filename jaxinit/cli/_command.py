"""What commands share: how one is added to the parser, and the options of runs over seeds."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Any

from jaxinit.cli import _options


def add(
    commands: Any, common: argparse.ArgumentParser, name: str, what: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """The parser of a command: `what` stands in the list of commands, `examples` below its own options."""
    return commands.add_parser(
        name,
        parents=[common],
        help=what,
        description=textwrap.fill(description, shutil.get_terminal_size().columns - 2),
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_seeds(group: Any, default: int | None, shown: Any = None) -> None:
    """`--seeds`, a count or a list; `shown` is the default in words where it is not `default`."""
    group.add_argument(
        "--seeds", type=_options.seeds, default=default, metavar="N",
        help=f"a count, or a list of seeds (default: {default if shown is None else shown})",
    )  # fmt: skip


def add_simulation(own: argparse.ArgumentParser) -> None:
    """The options of commands that simulate canonical networks."""
    run = own.add_argument_group("run")
    add_seeds(run, 64)
    run.add_argument(
        "--sampler", default="auto", metavar="NAME",
        help="auto, implicit (no weight matrix is formed) or materialized (default: auto)",
    )  # fmt: skip
    run.add_argument(
        "--approximate",
        action="store_true",
        help="let implicit treat other iid laws as Gaussian (error O(1/width))",
    )
    run.add_argument("--forward-only", action="store_true", help="leave the gradients out")


def simulation(options: argparse.Namespace) -> dict[str, Any]:
    """What `simulate` and `sweep` take of these options, but the seeds."""
    return {
        "sampler": options.sampler,
        "approximate": options.approximate,
        "backward": not options.forward_only,
    }
