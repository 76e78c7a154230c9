"""Where results go: tables and sentences for people, JSON for programs, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_WIDTH = 120  # of tables in logs and pipes, unless COLUMNS says otherwise


def plain(value: Any) -> Any:
    """A value as JSON holds it. What JSON lacks becomes "nan", "inf" and "-inf": `float()` reads these."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _without_lines(thing: Any) -> Any:
    """A table, or a record's, as columns of blanks."""
    table = thing.table() if hasattr(thing, "table") else thing
    if hasattr(table, "box"):
        table.box, table.pad_edge, table.show_lines = None, False, False
    return table


def _reader_left() -> None:
    raise BrokenPipeError


class Output:
    """The output of one command. `words` are its arguments, for the line that runs it again.

    `plain` is for logs, on a terminal too: columns of blanks instead of lines, no colour, no bars.
    """

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, plain: bool = False, words: Sequence[str] = ()
    ) -> None:
        self.as_json, self.quiet, self.plain = as_json, quiet, plain
        self.rerun = shlex.join(["jaxinit", *words])

    def _console(self, error: bool) -> Console:
        from rich.console import Console

        stream = sys.stderr if error else sys.stdout
        width = None
        if self.plain or not stream.isatty():
            columns = os.environ.get("COLUMNS", "")
            width = int(columns) if columns.isdigit() and int(columns) > 20 else _PLAIN_WIDTH
        style: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "force_jupyter": False}
        if self.plain:
            style |= {"color_system": None, "force_terminal": False}
        console = Console(file=stream, width=width, **style)
        setattr(console, "on_broken_pipe", _reader_left)  # noqa: B010 (rich would exit with 1)
        return console

    @property
    def talks(self) -> bool:
        """Whether people read stdout."""
        return not (self.as_json or self.quiet)

    def say(self, *things: Any, **style: Any) -> None:
        """Print text or rich renderables to stdout, unless --json or --quiet."""
        if self.talks:
            if self.plain:
                things = tuple(map(_without_lines, things))
            self._console(error=False).print(*things, **style)

    def result(self, value: dict[str, Any]) -> None:
        """Print the JSON document, if it is wanted."""
        if self.as_json:
            print(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))

    def path(self, path: Any, what: str = "Report") -> None:
        """Name a file to open: the last line for people, the only line under --quiet."""
        if self.quiet and not self.as_json:
            print(path)
        else:
            self.say(f"{what}: {path}", soft_wrap=True, markup=False, highlight=False)  # never broken in two

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], object]]:
        """A function of (done, total): a bar on a terminal, one line at the end in a log, else nothing."""
        began = time.monotonic()
        if self.quiet or self.plain or not sys.stderr.isatty():
            yield lambda done, total: None
        else:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            from jaxinit.ensemble import rate_column

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                rate_column(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self._console(error=True), transient=True) as bars:
                task = bars.add_task(title, total=None)
                yield lambda done, total: bars.update(task, completed=done, total=total)
        if not self.quiet:
            print(f"{title}: {time.monotonic() - began:.1f} s", file=sys.stderr)
