"""Figures inside a page: the ink is the page's own, the colours are its variables, nothing is loaded."""

from __future__ import annotations

import hashlib
import html
import io
import re
from typing import TYPE_CHECKING

from jaxinit.plot._style import THEMES, require_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LIGHT, _DARK = THEMES["light"], THEMES["dark"]
#: Colours of the light theme -> what stands for them in a page.
_COLOURS = {
    **{hue: f"var(--figure-{n}, {hue})" for n, hue in enumerate(map(str.lower, _LIGHT.series))},
    _LIGHT.ink: "currentColor",
    _LIGHT.faint: f"var(--figure-faint, {_LIGHT.faint})",
}
_PAPER = f"var(--figure-paper, {_LIGHT.background})"


def variables(theme: str) -> str:
    """The CSS variables that figures of `svg` read, as declarations: a page sets them for each of its themes."""
    colours = THEMES[theme]
    pairs = {"faint": colours.faint, "paper": colours.background} | dict(enumerate(colours.series))
    return " ".join(f"--figure-{name}: {hue};" for name, hue in pairs.items())


def svg(figure: Figure, description: str = "") -> str:
    """A figure of the light theme as an `<svg>` element that follows the theme of the page around it.

    Its ink is `currentColor`; paper, grid and series are the CSS variables of `variables`, the light theme's colours
    where a page sets none. Text is drawn as outlines, so that it looks the same everywhere; `description` is what a
    screen reader says. The text is the same for the same figure, and several figures of a page share no ids.

    Example:
        >>> from jaxinit.plot import new_figure, svg
        >>> figure, _ = new_figure()
        >>> page = svg(figure, "an empty panel")
        >>> page.startswith("<svg") and 'aria-label="an empty panel"' in page and "currentColor" in page
        True
    """
    require_figure("svg", figure)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", buffer.getvalue(), flags=re.S)
    inside = re.sub(r"(?<=>)\s*\n\s*(?=<)", "", text[text.index(">", text.index("<svg")) + 1 :]).rstrip()
    inside = re.sub(r'(?<= d=")[^"]*', lambda found: _short(found[0]), inside)
    inside = re.sub(r'(?<=style=")[^"]*', lambda found: _themed(found[0]), inside)
    width, height = (72.0 * inches for inches in figure.get_size_inches())
    shape = f'viewBox="0 0 {width:g} {height:g}" style="width: 100%; max-width: {width:g}pt; height: auto"'
    said = f'role="img" aria-label="{html.escape(description)}"' if description else 'aria-hidden="true"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {shape} {said} '
        f'stroke-linejoin="round" stroke-linecap="butt">{_own_ids(inside)}'
    )


def _themed(style: str) -> str:
    """Colours of the light theme as what stands for them; white is paper where it fills."""
    style = re.sub(rf"fill: {_LIGHT.background}", f"fill: {_PAPER}", style)
    return re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: _COLOURS.get(found[0], found[0]), style)


def _short(path: str) -> str:
    """A path of hundredths of a point, on one line."""
    return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path.split()))


def _own_ids(text: str) -> str:
    """The ids in use numbered, after a hash of the figure: matplotlib's are random, or the same in all figures."""
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    names = {name: str(n) for n, name in enumerate(used)}
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{names[m[1]]}"' if m[1] in names else "", text)
    text = re.sub(r'(href="#|url\(#)([^")]+)', lambda m: m[1] + names[m[2]], text)
    mark = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return re.sub(r'( id="|href="#|url\(#)(?=\d)', rf"\1{mark}-", text)
