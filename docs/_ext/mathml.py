"""Equations as MathML, which browsers draw themselves: no script, no font and no network for the reader."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _mathml(node: nodes.Element, block: bool) -> str:
    source = node.astext()
    if block and ("\\\\" in source or "&" in source) and "\\begin" not in source:
        source = f"\\begin{{aligned}}{source}\\end{{aligned}}"
    try:
        return tex2mathml(source, as_block=block)
    except MathError as error:
        logger.warning("equation %r: %s", source, error, location=node, type="mathml")
        return f"<code>{nodes.unescape(source)}</code>"


def visit_inline(self: Any, node: nodes.Element) -> None:
    """Write the equation and nothing below it."""
    self.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.Element) -> None:
    """Write the equation with its number, which links to itself."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(f'<div class="equation">{_mathml(node, block=True)}</div>')
    if node["number"]:
        self.body.append(f'<span class="eqno">({node["number"]})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name "mathml"."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
