"""Tables that leave columns out where a terminal is too narrow, and say which: half a figure is no figure."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

_PADDING = 3  # a blank on both sides of a cell, and a line
_FOLDED = 8  # the least width of a column of sentences
_TEXT = 120  # of a table as a string


class FittedTable(Table):
    """A rich table whose figures stay whole in narrow terminals: the least needed columns are left out.

    Args:
        expendable: headers of the columns that may be left out, in this order; all but the first, from the right,
            if none is named.
        options: as of `rich.table.Table`.
    """

    def __init__(self, *, expendable: Iterable[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self.expendable = tuple(expendable)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = list(self.columns)
        for header in self.expendable or [str(c.header) for c in reversed(kept[1:])]:
            known = next((i for i, c in enumerate(kept) if str(c.header) == header), None)
            if known is not None and 1 + sum(_least(c) + _PADDING for c in kept) > options.max_width:
                del kept[known]
        gone = [str(c.header) for c in self.columns if not any(c is k for k in kept)]
        yield from Table.__rich_console__(self._only(kept, gone) if gone else self, console, options)

    def __str__(self) -> str:
        """Plain text, 120 characters wide at most: what `print(table)` shows."""
        console = Console(
            file=io.StringIO(), width=_TEXT, color_system=None, force_jupyter=False, _environ={}
        )
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())

    def _only(self, columns: list[Column], gone: list[str]) -> Table:
        note = "not shown at this width: " + ", ".join(filter(None, gone))
        table = Table(
            title=self.title, caption=f"{self.caption}\n{note}" if self.caption else note, box=self.box,
            title_justify=self.title_justify, caption_justify="left", show_header=self.show_header,
            show_lines=self.show_lines, pad_edge=self.pad_edge,
        )  # fmt: skip
        for c in columns:
            table.add_column(
                c.header, justify=c.justify, no_wrap=c.no_wrap, overflow=c.overflow, min_width=c.min_width
            )
        for row in zip(*(c.cells for c in columns), strict=True):
            table.add_row(*row)
        return table


def _least(column: Column) -> int:
    """The width below which cells of this column are cut, or words broken."""
    cells = [Text(str(c)) for c in (column.header, *column.cells)]
    if column.no_wrap:
        return max(c.cell_len for c in cells)
    if column.overflow == "fold":
        return column.min_width or _FOLDED
    return max((Text(word).cell_len for c in cells for word in c.plain.split()), default=0)
