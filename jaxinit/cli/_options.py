"""Options as values: numbers, lists, and initializers written as in Python."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from typing import Any


def split(text: str) -> list[str]:
    """Split at commas that stand outside brackets: `he,normal(stddev=0.1)` has two parts."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [part.strip() for part in parts]


def _each(text: str, kind: Callable[[str], Any], what: str) -> list[Any]:
    try:
        return [kind(part) for part in split(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None


def numbers(text: str) -> list[float]:
    """`0.01,0.1` as floats."""
    return _each(text, float, "a number or a list of numbers such as 0.01,0.1")


def integers(text: str) -> list[int]:
    """`10,50` as integers."""
    return _each(text, int, "an integer or a list of integers such as 10,50")


def seeds(text: str) -> Any:
    """`16` (seeds 0 to 15) or `100,101,102` (these seeds)."""
    found = _each(text, int, "a count such as 16 or a list such as 3,5,8")
    return found[0] if len(found) == 1 else found


def values(text: str) -> list[float]:
    """Numbers, and ranges LOW:HIGH:COUNT of evenly spaced ones: `0,0.5:2:4` is 0, 0.5, 1, 1.5, 2."""
    out: list[float] = []
    for part in split(text):
        low, *rest = part.split(":")
        try:
            if not rest:
                out.append(float(low))
                continue
            high, count = rest
            first, last, n = float(low), float(high), int(count)
            if n < 2:
                raise ValueError
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{part!r} is neither a number nor LOW:HIGH:COUNT such as 0.5:4:8"
            ) from None
        out += [first + (last - first) * i / (n - 1) for i in range(n)]
    return out


def initializer(text: str) -> Any:
    """One initializer: a name ("he"), or a call of its factory with literal arguments ("normal(stddev=0.1)").

    Nothing is evaluated but literals.
    """
    from jaxinit import initializers
    from jaxinit.initializers._catalogue import resolve

    if "(" not in text:
        return resolve("jaxinit", "--init", text)
    rule = f"--init {text!r}: write a name such as he, or a call such as normal(stddev=0.1)"
    try:
        call = ast.parse(text, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise ValueError(rule)
        arguments = [ast.literal_eval(a) for a in call.args]
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(rule) from None
    name = call.func.id
    factory = getattr(initializers, name, None)
    if name in ("get", "names", "fans", "from_config") or name not in initializers.__all__ or factory is None:
        resolve("jaxinit", "--init", name)  # an unknown name: the error lists the nearest
        raise ValueError(f"{rule}; the aliases of names take no arguments, {name!r} is one")
    return initializers.get(factory(*arguments, **keywords))


def initializers(text: str) -> dict[str, Any]:
    """`he,xavier,normal(stddev=0.1)` as label -> initializer."""
    out: dict[str, Any] = {}
    for part in split(text):
        if part in out:
            raise ValueError(f"--init names {part!r} twice: each initializer once")
        out[part] = initializer(part)
    return out
