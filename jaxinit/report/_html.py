"""A page from strings: every text is escaped here, nothing is loaded from elsewhere, no script is needed."""

from __future__ import annotations

import base64
import html
import importlib.resources
from collections.abc import Iterable
from typing import Any

from jaxinit.report._tables import Table


def text(value: Any) -> str:
    """Any value as safe HTML text."""
    return html.escape(str(value), quote=True)


def element(tag: str, *children: str, **attributes: str) -> str:
    """An element of children that are HTML already; attribute values are escaped. `class_` gives `class`."""
    inside = "".join(f' {name.rstrip("_").replace("_", "-")}="{text(v)}"' for name, v in attributes.items())
    return f"<{tag}{inside}>{''.join(children)}</{tag}>"


def picture(light: bytes, dark: bytes, description: str) -> str:
    """A figure that follows the reader's theme; print is light. The images are inside the page."""

    def uri(image: bytes) -> str:
        return "data:image/png;base64," + base64.b64encode(image).decode("ascii")

    return (
        "<figure><picture>"
        f'<source srcset="{uri(dark)}" media="screen and (prefers-color-scheme: dark)">'
        f'<img src="{uri(light)}" alt="{text(description)}">'
        f"</picture>{element('figcaption', text(description))}</figure>"
    )


def table(content: Table, *, words: bool = False) -> str:
    """A table under its heading, if it has one; `words` for tables of text rather than numbers."""
    head = element("tr", *(element("th", text(h), scope="col") for h in content.headers))
    rows = [
        element(
            "tr", element("th", text(row[0]), scope="row"), *(element("td", text(cell)) for cell in row[1:])
        )
        for row in content.rows
    ]
    note = element("caption", text(content.note)) if content.note else ""
    kind = "words" if words else "numbers"
    body = element("table", note, element("thead", head), element("tbody", *rows), class_=kind)
    heading = element("h3", text(content.title)) if content.title else ""
    return heading + element("div", body, class_="wide", tabindex="0")


def section(title: str, *content: str) -> str:
    """A section, empty if it has no content."""
    inside = "".join(content)
    return element("section", element("h2", text(title)), inside) if inside else ""


def page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """The whole document."""
    style = importlib.resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="jaxinit"><title>{text(title)}</title><style>{style}</style>'
    )
    header = element("header", element("h1", text(title)), element("p", text(subtitle), class_="soft"))
    body = header + element("main", *sections)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'
