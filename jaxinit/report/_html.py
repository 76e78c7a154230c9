"""A page from strings: every text is escaped here, nothing is loaded from elsewhere, one small script sorts tables.

The page says by its content security policy that no other script may run and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
from collections.abc import Iterable
from typing import Any

from jaxinit.plot import variables
from jaxinit.report._tables import Table


def text(value: Any) -> str:
    """Any value as safe HTML text."""
    return html.escape(str(value), quote=True)


def element(tag: str, *children: str, **attributes: str) -> str:
    """An element of children that are HTML already; attribute values are escaped. `class_` gives `class`."""
    inside = "".join(f' {name.rstrip("_").replace("_", "-")}="{text(v)}"' for name, v in attributes.items())
    return f"<{tag}{inside}>{''.join(children)}</{tag}>"


def picture(drawing: str, description: str, *, wide: bool = False) -> str:
    """A figure, given as an svg element, over its description; `wide` for one of several panels, scrolls on a phone."""
    caption = element("figcaption", text(description))
    return element("figure", drawing, caption, **({"class_": "whole", "tabindex": "0"} if wide else {}))


#: Rows of a table on paper; on a screen longer ones scroll.
PRINTED = 40


def table(content: Table, *, words: bool = False) -> str:
    """A table under its heading, if it has one; `words` for tables of text, whose rows are cards on a phone.

    A long one scrolls under its header, and is printed up to `PRINTED` rows, those on top as the reader has sorted it.
    """
    side = [{"class_": "left"} if n in content.words else {} for n in range(len(content.headers))]
    heads = zip(content.headers, side, strict=True)
    head = element("tr", *(element("th", text(h), scope="col", **left) for h, left in heads))
    rows = []
    for first, *others in content.rows:
        named = zip(content.headers[1:], others, side[1:], strict=True)
        cells = (
            element("td", text(cell), **({"data_label": h} if words else left)) for h, cell, left in named
        )
        rows.append(element("tr", element("th", text(first), scope="row"), *cells))
    note = element("caption", text(content.note)) if content.note else ""
    kind = "words" if words else "numbers"
    body = element("table", note, element("thead", head), element("tbody", *rows), class_=kind)
    heading = element("h3", text(content.title)) if content.title else ""
    if len(rows) <= PRINTED:
        return heading + element("div", body, class_="wide", tabindex="0")
    left = f"{PRINTED} of {len(rows)} rows are printed; the page has all."
    return (
        heading
        + element("div", body, class_="wide long", tabindex="0")
        + element("p", left, class_="paper soft")
    )


def section(title: str, *content: str) -> str:
    """A section, empty if it has no content."""
    inside = "".join(content)
    return element("section", element("h2", text(title)), inside) if inside else ""


def _resource(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """The whole document."""
    style = (
        _resource("page.css")
        .replace("/*light*/", variables("light"))
        .replace("/*dark*/", variables("dark"))
        .replace("PRINTED", str(PRINTED))
    )
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="jaxinit"><title>{text(title)}</title><style>{style}</style>'
    )
    header = element("header", element("h1", text(title)), element("p", text(subtitle), class_="soft"))
    body = header + element("main", *sections) + element("script", script)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'
