"""Paths of parameters, and patterns of them."""

from __future__ import annotations

import re
from typing import Any

import jax

__all__ = ["flatten", "matcher"]


def flatten(params: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Leaves with their paths, `encoder/layers_0/kernel`, and the structure; boxes and Variables are seen through."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    named = []
    for path, value in leaves:
        parts = [_part(p) for p in path]
        if path and isinstance(path[-1], jax.tree_util.GetAttrKey) and parts[-1] in ("value", "raw_value"):
            parts = parts[:-1]
        named.append(("/".join(parts), value))
    return named, tree


def _part(entry: Any) -> str:
    for name in ("key", "name", "idx"):
        if hasattr(entry, name):
            return str(getattr(entry, name))
    return str(entry)


def matcher(pattern: str) -> re.Pattern[str]:
    """A compiled pattern of whole paths: `*` within a part, `**` across any number of parts."""
    out = []
    for i, part in enumerate(parts := pattern.split("/")):
        last = i == len(parts) - 1
        if part == "**":
            out.append(".*" if last else "(?:[^/]+/)*")
        else:
            text = "".join("[^/]*" if c == "*" else "[^/]" if c == "?" else re.escape(c) for c in part)
            out.append(text if last else text + "/")
    return re.compile("".join(out))
