"""Run by every kernel of the build as it starts: figures become drawings that follow the reader's theme."""

from __future__ import annotations

from typing import Any


def _words(figure: Any) -> str:
    """What a figure shows, for readers who hear the page: its titles, or what is drawn against what."""
    panels = [ax.get_title() or f"{ax.get_ylabel()} against {ax.get_xlabel()}" for ax in figure.axes]
    return figure.get_suptitle() or "; ".join(text for text in panels if len(text) > len(" against "))


def _drawing(figure: Any) -> str:
    from jaxinit.plot import svg

    return f'<div class="drawing">{svg(figure, _words(figure))}</div>'


formatters = get_ipython().display_formatter.formatters  # type: ignore[name-defined]  # noqa: F821
formatters["text/html"].for_type_by_name("matplotlib.figure", "Figure", _drawing)
