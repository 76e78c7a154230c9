"""Docstrings of this project as reStructuredText.

They are written to be read in a terminal: `names` in single backticks, equations as indented blocks, stars and bars
as they come. Here they become reStructuredText: equations are kept as they stand, everything else that
reStructuredText would take for markup is escaped, and names become references.
"""

from __future__ import annotations

import re
from typing import Any

_SECTION = re.compile(
    r"^(Args|Arguments|Attributes|Returns|Yields|Raises|Example|Examples|References|Source|Holds):$"
)
#: Sections of entries, `name: what it is`; their continuation lines are indented further.
_ENTRIES = ("Args", "Arguments", "Attributes", "Raises", "Returns")
_ENTRY = re.compile(r"^(\s*)([\w*, ]+): ?(.*)$")
#: Sections of one line.
_INLINE = re.compile(r"^(Source|References|Raises|Returns): (?=\S)")
_CODE = re.compile(r"(`[^`]+`)")
_NAME = re.compile(r"^`(?:ji\.)?([A-Za-z_][\w.]*)(?:\(\))?`$")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s")


def _code(part: str) -> str:
    """A span in backticks: a reference if it is a name, else literal."""
    name = _NAME.match(part)
    return f":name:`{name[1]}`" if name else f"``{part[1:-1]}``"


def prose(line: str) -> str:
    """A line of text with code as code and nothing else as markup.

    reStructuredText wants a blank or punctuation around code; an escaped blank serves and is not shown.
    """
    out = ""
    after_code = False
    for part in _CODE.split(line):
        if _CODE.fullmatch(part):
            out += ("\\ " if out[-1:].isalnum() else "") + _code(part)
            after_code = True
        elif part:
            escaped = re.sub(r"[\\*|]|_(?=\W|$)", lambda found: "\\" + found[0], part)
            out += ("\\ " if after_code and part[0].isalnum() else "") + escaped
            after_code = False
    return out


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block(lines: list[str], start: int, deeper_than: int) -> int:
    """The end of the block that starts here: its lines are blank or indented deeper."""
    end = start
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > deeper_than):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return end


def _in_list(lines: list[str], i: int) -> bool:
    """Whether the line belongs to an item of a list above it."""
    for above in reversed(lines[:i]):
        if _ITEM.match(above):
            return _indent(lines[i]) > _indent(above)
        if above.strip() and _indent(above) < _indent(lines[i]):
            return False
    return False


def _plain(line: str, section: str) -> str:
    """One line outside of equations and code."""
    inline = _INLINE.match(line)
    if inline and not section:
        return f"**{inline[1]}:** " + prose(line[inline.end() :])
    entry = _ENTRY.match(line) if section in _ENTRIES and _indent(line) == 4 else None
    if entry:
        return f"{entry[1]}{entry[2]}: {prose(entry[3])}"
    return prose(line)


def convert(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText with Google sections, which napoleon then reads."""
    out: list[str] = []
    section = ""
    i = 0
    while i < len(lines):
        line = lines[i]
        if line.strip() and _indent(line) == 0:
            heading = _SECTION.match(line)
            section = heading[1] if heading else ""
            if heading:
                out.append(line)
                i += 1
                continue
        base = 4 if section else 0
        end = i + 1
        if line.lstrip().startswith(">>>"):
            while end < len(lines) and lines[end].strip():
                end += 1
            out += lines[i:end]
        elif (
            _indent(line) > base
            and section not in _ENTRIES
            and (i == 0 or not lines[i - 1].strip())
            and not _in_list(lines, i)
        ):
            end = _block(lines, i, base)
            out += [" " * base + ".. code-block:: text", "", *lines[i:end], ""]
        else:
            out.append(_plain(line, section) if line.strip() else "")
        i = end
    return out


def values(constant: Any) -> list[str]:
    """What a constant holds: a definition each entry of a dict, else the value itself."""
    if not isinstance(constant, dict):
        return [f"``{constant!r}``"]
    entries = ((key, text if isinstance(text, str) else text[0]) for key, text in constant.items())
    return [line for key, text in entries for line in (f"``{key}``", "    " + prose(text), "")]
