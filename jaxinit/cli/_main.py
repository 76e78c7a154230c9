"""The parser, and the door that errors leave by.

Exit codes: 0 done; 2 the input does not fit (a bad option, a missing file, a value that breaks a rule); 1 any
other failure, of the disk too; 3 a finding that --fail-on names; 130 interrupted. A caught error is one line on
stderr, and below it one for each of its notes; `--debug` shows the traceback instead.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxinit import __version__
from jaxinit.cli import (
    _bench,
    _calibrate,
    _compare,
    _demo,
    _init_table,
    _phase,
    _probe,
    _saved,
    _simulate,
    _sweep,
)
from jaxinit.cli._output import Output

COMMANDS: tuple[Any, ...] = (
    _demo,
    _probe,
    _init_table,
    _calibrate,
    _simulate,
    _sweep,
    _phase,
    _compare,
    _saved.Report(),
    _saved.Plot(),
    _bench,
)

#: A path that names nothing, or not what is wanted there: bad input.
_NO_SUCH_INPUT = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)

_EPILOG = """\
examples:
  jaxinit demo                                        the whole story in about two minutes
  jaxinit probe model.py:net --input 32x784           your own Flax model, and what is wrong with it
  jaxinit init-table model.py:net --input 32x784      which initializer each parameter got
  jaxinit calibrate model.py:net --input 32x784       parameters with which its signal survives
  jaxinit simulate --depth 50 --init he,xavier        signal and gradient, layer by layer
  jaxinit sweep --depth 10,50 --activation tanh,relu  the same over a grid of networks
  jaxinit phase tanh                                  order, chaos and the edge between them
  jaxinit compare --data digits --init he,xavier      what the initializer does to training
  jaxinit report demo/he.npz demo/xavier.npz          one page from saved records

`jaxinit COMMAND --help` explains a command.
Exit codes: 0 done, 2 bad input, 1 failure, 3 found (--fail-on), 130 interrupted.
"""


def _common() -> argparse.ArgumentParser:
    """The options of every command; made anew for each, since argparse shares defaults with its parents."""
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("output")
    group.add_argument(
        "--out", metavar="DIR", help="write records (.npz), figures (.png) and report.html into DIR"
    )
    group.add_argument(
        "--json", action="store_true", help="print the results as one JSON document and nothing else"
    )
    group.add_argument(
        "--quiet", action="store_true", help="print nothing but the path of the report, and errors"
    )
    group.add_argument(
        "--plain", action="store_true", help="for logs: no lines around tables, no colour, no progress bar"
    )
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return common


def parser() -> argparse.ArgumentParser:
    """The parser of `jaxinit`."""
    top = argparse.ArgumentParser(
        prog="jaxinit",
        description="Will this network's signal survive initialization, and which initializer should I use?",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"jaxinit {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for command in COMMANDS:
        command.add(commands, _common())
    return top


def _one_line(error: BaseException) -> str:
    """The message on one line; what JAX adds below the first paragraph is left to --debug."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"no such file: {error.filename!r}"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror + ("" if error.filename is None else f": {str(error.filename)!r}")
    first = str(error).strip().split("\n\n")[0]
    return " ".join(first.split()) or type(error).__name__


def _tell(start: str, error: BaseException, end: str = "") -> None:
    """One line on stderr, and those that the error was given on its way."""
    notes = (" ".join(note.split()) for note in getattr(error, "__notes__", ()))
    print(f"jaxinit: {start}{_one_line(error)}{end}", *notes, sep="\n", file=sys.stderr)


def _unknown(options: argparse.Namespace, left: list[str]) -> str:
    """What to say of words that a command does not take: the option meant, where one is near."""
    told = f"unrecognized arguments: {' '.join(left)}."
    word = left[0].split("=")[0]
    known = ["--" + name.replace("_", "-") for name in vars(options) if name not in ("run", "command")]
    if word in known:
        told += f" {word[2:].upper()} is given without {word}."
    elif word.startswith("--") and (near := difflib.get_close_matches(word, known, n=1)):
        told += f" Did you mean {near[0]}?"
    return f"{told} `jaxinit {options.command} --help` lists its options"


@contextlib.contextmanager
def _writable(folder: str | None) -> Iterator[None]:
    """The folder of --out is there, and takes files, before anything is computed; gone if nothing came of it."""
    if folder is None:
        yield
        return
    target = Path(folder)
    new = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder!r} cannot be made: {error.strerror}") from None
    if not os.access(target, os.W_OK | os.X_OK):
        raise ValueError(f"--out {folder!r} cannot be written to")
    try:
        yield
    finally:
        if new and not any(target.iterdir()):
            target.rmdir()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. `argv` is `sys.argv[1:]` by default."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ⟨z²⟩ shows ? and goes on
    top = parser()
    if not words:
        top.print_help(sys.stderr)
        top.exit(2)
    options, left = top.parse_known_args(words)
    if left:
        top.error(_unknown(options, left))
    out = Output(as_json=options.json, quiet=options.quiet, plain=options.plain, words=words)
    try:
        with _writable(options.out):
            code = options.run(options, out) or 0
    except KeyboardInterrupt as stop:
        print("jaxinit: interrupted", *getattr(stop, "__notes__", ()), sep="\n", file=sys.stderr)
        if argv is None:  # programs may still run in threads of JAX, whose end would be waited for, or crash
            sys.stdout.flush()
            os._exit(130)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `jaxinit ... | head` is no error
        return 0
    except (ValueError, TypeError, ImportError, *_NO_SUCH_INPUT) as error:
        if options.debug:
            raise
        _tell("error: ", error)
        return 2
    except OSError as error:  # a full disk, a folder that takes no files: nothing is wrong with the input
        if options.debug:
            raise
        _tell("failed: ", error)
        return 1
    except Exception as error:
        if options.debug:
            raise
        _tell(f"failed: {type(error).__name__}: ", error, " (--debug shows where)")
        return 1
    return int(code)
