"""Progress of a study: a bar on a terminal, or the caller's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxinit._core import checks
from jaxinit._core.console import stderr_console, watched

#: Called with (steps done, steps in all).
Progress = Callable[[int, int], object]


def check(progress: object) -> None:
    """Raise TypeError unless `progress` is a bool or a callable."""
    if not (isinstance(progress, bool) or callable(progress)):
        raise checks.wrong_type("compare", "progress", "True, False or a callable (done, total)", progress)


@contextmanager
def reporter(progress: bool | Progress) -> Iterator[Progress]:
    """The function to call with (done, total); a bar on stderr only where someone sees it."""
    if callable(progress):
        yield progress
    elif not (progress and watched()):
        yield lambda done, total: None
    else:
        from rich.progress import Progress as Bar
        from rich.progress import TimeElapsedColumn, TimeRemainingColumn

        columns = (*Bar.get_default_columns()[:3], TimeElapsedColumn(), TimeRemainingColumn())
        with Bar(*columns, console=stderr_console(), transient=True) as bar:
            task = bar.add_task("training", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
