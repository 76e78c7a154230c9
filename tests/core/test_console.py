"""Progress is shown in terminals and in notebooks, and nowhere else."""

import io
import sys
import types

import pytest

from jaxinit._core import console
from jaxinit.compare._progress import reporter as of_training
from jaxinit.ensemble import reporter as of_seeds


class Notebook(io.StringIO):
    """The stderr of a kernel: no terminal."""

    def isatty(self) -> bool:
        return False


def become(shell: str, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """Pretend that IPython runs, with a shell of this class; returns the stderr."""
    stderr = Notebook()
    monkeypatch.setattr(sys, "stderr", stderr)
    running = types.SimpleNamespace(get_ipython=lambda: type(shell, (), {})())
    monkeypatch.setitem(sys.modules, "IPython", running)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # as if it were not installed
    return stderr


@pytest.mark.parametrize("reporter", [of_training, of_seeds])
def test_a_bar_in_a_notebook(reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = become("ZMQInteractiveShell", monkeypatch)
    assert console.in_notebook() and console.watched()
    with reporter(True) as report:
        report(3, 8)
        report(8, 8)
    shown = stderr.getvalue()
    assert "\r" in shown and "━" in shown
    assert (
        "\x1b[1A" not in shown.rpartition("━")[0]
    )  # notebooks understand a return to the start of the line, not a line up


@pytest.mark.parametrize("shell", ["TerminalInteractiveShell", "NoneType"])
def test_a_file_gets_no_bar_of_training(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = become(shell, monkeypatch)
    assert not console.in_notebook() and not console.watched()
    with of_training(True) as report:
        report(8, 8)
    assert stderr.getvalue() == ""


def test_without_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not console.in_notebook()
