"""`jaxinit report` and `jaxinit plot`: pages and figures from saved records, without running anything again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxinit.cli import _command
from jaxinit.cli._output import Output

_REPORT = """\
examples:
  jaxinit report demo/*.npz --out demo
  jaxinit report He=runs/a.npz Xavier=runs/b.npz --title 'Two initializers' --out page
"""

_PLOT = """\
examples:
  jaxinit plot demo/he.npz demo/xavier.npz --out figures
  jaxinit plot He=runs/a.npz training=runs/b.npz --format pdf --out figures
"""


def load(files: list[str]) -> dict[str, Any]:
    """Label -> record from `FILE` (labelled by its name) or `LABEL=FILE`; after a sweep, some of its points."""
    from jaxinit.cli._results import POINTS
    from jaxinit.records import Sweep, load

    out: dict[str, Any] = {}
    for word in files:
        label, sign, path = word.partition("=")
        if not sign or Path(word).exists():
            label, path = Path(word).stem, word
        if label in out:
            raise ValueError(f"two records are labelled {label!r}: name them, as in first={path}")
        record = load(path)
        out[label] = record
        if isinstance(record, Sweep):
            out |= {f"{label}: {name}": point for name, point in record.propagations(POINTS).items()}
    return out


def _files(own: argparse.ArgumentParser) -> None:
    own.add_argument("files", nargs="+", metavar="[LABEL=]FILE", help="records that jaxinit saved (.npz)")
    own.set_defaults(out=".")


class Report:
    """`jaxinit report`."""

    def add(self, commands: Any, common: argparse.ArgumentParser) -> None:
        """Add the command to the parser."""
        own = _command.add(
            commands,
            common,
            "report",
            "one HTML page from saved records",
            "Write one self-contained HTML page, report.html, from saved records. A signal and an initializer of a "
            "training comparison that share a label share a verdict.",
            _REPORT,
        )
        _files(own)
        own.add_argument("--title", metavar="TEXT", help="heading of the page")
        own.set_defaults(run=self.run)

    def run(self, options: argparse.Namespace, out: Output) -> None:
        """Run `jaxinit report`."""
        from jaxinit.cli import _results
        from jaxinit.report import report

        records = load(options.files)
        page = report(records, Path(options.out) / "report.html", title=options.title, rerun=out.rerun)
        verdicts = _results.show_verdicts(out, records)
        out.path(page)
        out.result({"command": "report", "verdicts": verdicts, "files": [page]})


class Plot:
    """`jaxinit plot`."""

    def add(self, commands: Any, common: argparse.ArgumentParser) -> None:
        """Add the command to the parser."""
        own = _command.add(
            commands,
            common,
            "plot",
            "figures from saved records",
            "Draw saved records: all signals in one figure, each other record in its own.",
            _PLOT,
        )
        _files(own)
        own.add_argument("--format", default="png", metavar="KIND", help="png, svg or pdf (default: png)")
        own.add_argument("--theme", default="light", metavar="NAME", help="light or dark (default: light)")
        own.set_defaults(run=self.run)

    def run(self, options: argparse.Namespace, out: Output) -> None:
        """Run `jaxinit plot`."""
        from jaxinit.cli import _results

        paths = _results.draw(
            Path(options.out), load(options.files), kind=options.format, theme=options.theme
        )
        for path in paths:
            out.path(path, "Figure")
        out.result({"command": "plot", "files": paths})
