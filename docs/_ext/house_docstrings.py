"""The reference: docstrings in house style, and links to every name that the reference has."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from house_style import convert, values
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring in place, before napoleon does."""
    if name.partition(".")[0] != "jaxinit" or what == "module":
        return
    lines[:] = values(obj) if what == "data" else convert(lines)


def resolve(app: Sphinx, env: Any, node: pending_xref, contnode: nodes.Element) -> nodes.Node | None:
    """Links by the last part of a name where only one object is called so; other names stay code, without a link."""
    if node.get("refdomain") != "py":
        return None
    objects = env.get_domain("py").objects
    last = node["reftarget"].rpartition(".")[2]
    found = [(full, entry) for full, entry in objects.items() if full.rpartition(".")[2] == last]
    top = [x for x in found if x[0].count(".") == 1] or [x for x in found if x[0].count(".") == 2] or found
    kept = [x for x in top if not x[1].aliased]
    if len(kept) == 1 and kept[0][1].objtype not in ("module", "attribute", "property"):
        entry = kept[0][1]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode)
    return contnode if node.get("reftype") == "obj" or not node["reftarget"].startswith("jaxinit.") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect both, the first ahead of napoleon."""
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
