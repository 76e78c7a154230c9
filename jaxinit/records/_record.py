"""What every record can do: save itself, show itself as a table, be drawn."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxinit.records import _codec
from jaxinit.records._equality import ByValue
from jaxinit.records._frames import optional

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table


class Record(ByValue):
    """Base of the records that travel between the areas of jaxinit (`Propagation`, `Convergence`, ...).

    Records are equal when all they say is, whatever their provenance: `ji.load(record.save(path)) == record`.
    """

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record to one .npz file (arrays, and a JSON header), atomically; `jaxinit.load` reads it."""
        return _codec.write(path, self)

    def table(self) -> Table:
        """The record as a rich table: print it with `rich.print(record)`."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """The record as a list of flat dicts, one a row: any frame library takes it."""
        raise NotImplementedError

    def to_pandas(self) -> Any:
        """`rows()` as a pandas DataFrame (needs the extra `pandas`)."""
        return optional("pandas", "to_pandas").DataFrame(self.rows())

    def plot(self, **kwargs: Any) -> Any:
        """Draw the record with `jaxinit.plot` (needs the extra `plot`); returns a matplotlib Figure."""
        return importlib.import_module("jaxinit.plot").figure(self, **kwargs)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table()

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        from jaxinit.records._html import html_table

        return html_table(self.table())


def load(path: str | os.PathLike[str]) -> Any:
    """Read a record that `record.save(path)` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged, foreign, or of a newer format.

    Example:
        >>> import jaxinit as ji, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.npz"
        >>> run = ji.simulate(ji.Network(3, 16, "relu", weight_variance=2.0), seeds=4)
        >>> ji.load(run.save(path)).sites == run.sites
        True
    """
    return _codec.read(path)
