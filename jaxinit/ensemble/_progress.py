"""Progress of a run: a bar with rate and time left, or the caller's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxinit._core.console import stderr_console

#: Called after each round of chunks with (seeds done, seeds in all), of this process.
Progress = Callable[[int, int], Any]


@contextmanager
def reporter(progress: bool | Progress) -> Iterator[Progress]:
    """The function to call with (done, total)."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        from rich.progress import MofNCompleteColumn, ProgressColumn, Task, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        class Rate(ProgressColumn):
            """Seeds a second."""

            def render(self, task: Task) -> Text:
                speed = task.finished_speed or task.speed
                return Text("" if speed is None else f"{speed:.3g} seeds/s")

        columns = (
            *Bar.get_default_columns()[:2],
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Bar(*columns, console=stderr_console()) as bar:
            task = bar.add_task("seeds", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
