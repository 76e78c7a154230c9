"""Docstrings as the reference shows them: what is an equation stays one, what is text is no markup."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "docs" / "_ext" / "house_style.py"


@pytest.fixture(scope="module")
def style():
    spec = importlib.util.spec_from_file_location("house_style", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the fixed point q* of |c_l - c*|", r"the fixed point q\* of \|c_l - c\*\|"),
        ("see `Propagation`, and `he_normal()`", "see :name:`Propagation`, and :name:`he_normal`"),
        ("applied as `x @ w`", "applied as ``x @ w``"),
        ("two `Statistic`s", r"two :name:`Statistic`\ s"),
        ("sigma_w and names_ end", r"sigma_w and names\_ end"),
        ("stars in `a * b` stay", "stars in ``a * b`` stay"),
    ],
)
def test_text_is_no_markup(style, text: str, shown: str) -> None:
    assert style.prose(text) == shown


def test_equations_are_kept_as_they_stand(style) -> None:
    lines = ["One sentence.", "", "    C(c) = E[phi(u) * phi(v)] / |q|", "", "Where q* is."]
    assert style.convert(lines) == [
        "One sentence.", "", ".. code-block:: text", "", "    C(c) = E[phi(u) * phi(v)] / |q|", "", "",
        r"Where q\* is.",
    ]  # fmt: skip


def test_entries_and_their_continuations_are_text(style) -> None:
    lines = ["Args:", "    q: mean square of", "        z*, positive.", "    c: cosine."]
    assert style.convert(lines) == [
        "Args:",
        "    q: mean square of",
        r"        z\*, positive.",
        "    c: cosine.",
    ]


def test_lists_are_no_equations(style) -> None:
    lines = ["Differs in this:", "", "- one *thing*", "", "  and more of it", "- another"]
    assert style.convert(lines)[2:] == [r"- one \*thing\*", "", "  and more of it", "- another"]


def test_examples_are_copied(style) -> None:
    lines = ["Example:", "    >>> 2 * 3  # |x|", "    6", "", "Source: A *and* B."]
    assert style.convert(lines) == [*lines[:4], r"**Source:** A \*and\* B."]


def test_constants_show_what_they_hold(style) -> None:
    assert style.values({"ok": "all is *well*"}) == ["``ok``", r"    all is \*well\*", ""]
    assert style.values("word") == ["``'word'``"]
