"""Records in notebooks: the table of the terminal as HTML that suits light and dark pages.

Styles are inline and colours relative to the page's own: notebooks that are not trusted drop style sheets.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_LINE = "1px solid rgba(128, 128, 128, 0.35)"
_CELL = "padding: 0.15em 0.7em; border: 0; color: inherit; background: transparent"
_NOTE = "margin: 0.2em 0; color: inherit; font-size: 0.9em; opacity: 0.75"


def _plain(text: Any) -> str:
    return html.escape("" if text is None else str(text))


def _cell(tag: str, text: Any, column: Any, line: bool) -> str:
    side = {"right": "right", "center": "center"}.get(column.justify, "left")
    wrap = "nowrap" if column.no_wrap or side == "right" else "normal"
    style = f"{_CELL}; text-align: {side}; white-space: {wrap}" + (
        f"; border-bottom: {_LINE}" if line else ""
    )
    return f'<{tag} style="{style}">{_plain(text)}</{tag}>'


def html_table(table: Table) -> str:
    """A rich table as HTML: title, rows, caption; every text escaped, markup of the terminal not interpreted.

    Example:
        >>> from rich.table import Table
        >>> from jaxinit.records._html import html_table
        >>> table = Table("name", title="a < b")
        >>> table.add_row("<script>")
        >>> "a &lt; b" in html_table(table), "&lt;script&gt;" in html_table(table), "<script" in html_table(table)
        (True, True, False)
    """
    columns = table.columns
    head = "".join(_cell("th", column.header, column, line=True) for column in columns)
    rows = zip(*(column.cells for column in columns), strict=True)
    body = "".join(
        "<tr>"
        + "".join(_cell("td", cell, c, table.show_lines) for cell, c in zip(row, columns, strict=True))
        + "</tr>"
        for row in rows
    )
    parts = ['<div class="jaxinit-record" style="max-width: 100%; overflow-x: auto">']
    if table.title is not None:
        parts.append(
            f'<p style="margin: 0.2em 0; color: inherit; font-weight: 600">{_plain(table.title)}</p>'
        )
    parts.append(
        '<table style="width: auto; margin: 0; border: 0; border-collapse: collapse; '
        'font-variant-numeric: tabular-nums; font-size: 0.9em">'
    )
    if table.show_header:
        parts.append(f'<thead><tr style="background: transparent">{head}</tr></thead>')
    parts.append(f"<tbody>{body}</tbody></table>")
    if table.caption is not None:
        parts.append(f'<p style="{_NOTE}">{_plain(table.caption)}</p>')
    return "".join([*parts, "</div>"])
