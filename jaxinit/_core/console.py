"""Where progress is shown: stderr, in a terminal and in a notebook alike."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def watched() -> bool:
    """Whether someone sees what is written to stderr as it comes: a terminal or a notebook, no file and no pipe."""
    return sys.stderr.isatty() or in_notebook()


def stderr_console() -> Console:
    """A rich console on stderr.

    In a notebook rich would draw bars with ipywidgets, which may not be there; a bar of one line that returns to its
    start is understood by all of them.
    """
    from rich.console import Console

    if in_notebook():
        return Console(file=sys.stderr, force_terminal=True, force_jupyter=False, width=100)
    return Console(stderr=True)
