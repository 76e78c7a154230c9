"""The reference: docstrings in house style, and links to every name that the reference has."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from house_style import convert, values
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

#: No domain of Sphinx, so that all its references come to `resolve`.
_DOMAIN = "jaxinit"


def _name(
    role: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """The role of names in docstrings."""
    node = pending_xref(
        rawtext, nodes.literal(text, text, classes=["xref", "py"]),
        refdomain=_DOMAIN, reftype="name", reftarget=text, refdoc=inliner.document.settings.env.docname,
    )  # fmt: skip
    return [node], []


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring in place, before napoleon does."""
    if name.partition(".")[0] != "jaxinit" or what == "module":
        return
    lines[:] = values(obj) if what == "data" else convert(lines)


def resolve(app: Sphinx, env: Any, node: pending_xref, contnode: nodes.Element) -> nodes.Node | None:
    """A link to the one object whose name ends so; other names in docstrings stay code, without a link."""
    if node.get("refdomain") not in ("py", _DOMAIN):
        return None
    last = node["reftarget"].rpartition(".")[2]
    objects = {k: v for k, v in env.get_domain("py").objects.items() if k.rpartition(".")[2] == last}
    depth = min((name.count(".") for name in objects), default=0)  # the shortest: ji.critical
    found = [v for k, v in objects.items() if k.count(".") == depth and not v.aliased]
    if len(found) == 1 and found[0].objtype not in ("attribute", "property"):
        return make_refnode(app.builder, node["refdoc"], found[0].docname, found[0].node_id, contnode)
    return contnode if node["refdomain"] == _DOMAIN else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect both, the first ahead of napoleon."""
    app.add_role("name", _name)
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
