"""Progress of a run: a bar with rate and time left, or the caller's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxinit._core.console import stderr_console

#: Called after each round of chunks with (seeds done, seeds in all), of this process.
Progress = Callable[[int, int], Any]


def rate_column(what: str = "") -> Any:
    """A column of a rich bar: how many are done a second."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.3g}{' ' * bool(what)}{what}/s")

    return Rate()


@contextmanager
def reporter(progress: bool | Progress) -> Iterator[Progress]:
    """The function to call with (done, total)."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        from rich.progress import MofNCompleteColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            *Bar.get_default_columns()[:2],
            MofNCompleteColumn(),
            rate_column("seeds"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Bar(*columns, console=stderr_console()) as bar:
            task = bar.add_task("seeds", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
