"""Every example runs: doctests of all modules, the Python blocks of README and docs, in order, and command lines.

Pages with code cells are executed by the build of the documentation (`make docs`), which fails on an exception.
"""

import doctest
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "jaxinit").rglob("*.py")
    if ">>>" in path.read_text()
)
SOURCES = [ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
PAGES = sorted(p for p in SOURCES if "```python" in p.read_text())
BITS = {"migration.md"}  #: pages that promise those of other libraries
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)
#: What a block may be; Python that nothing runs is not among them.
KINDS = {"python", "{code-cell} ipython3", "{eval-rst}", "{toctree}", "{include}"}
KINDS |= {"bash", "bibtex", "text", "yaml"}


@pytest.fixture(autouse=True)
def as_users_have_it():  # type: ignore[no-untyped-def]
    """Users run with jax's own promotion rules."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[pytest.mark.optimized] if p.name in BITS else []) for p in PAGES],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(block, str(page), "exec"), names)


def test_the_story_in_the_readme_is_short() -> None:
    first = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 15


@pytest.mark.parametrize("page", sorted(SOURCES), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_block_is_of_a_kind_that_is_checked(page: Path) -> None:
    kinds = {kind for kind, _ in FENCE.findall(page.read_text())}
    included = {kind for kind in kinds if kind.startswith("{include} ")}
    assert all((page.parent / kind.split()[1]).exists() for kind in included)
    kinds = kinds - included | ({"{include}"} if included else set())
    assert kinds <= KINDS
    assert not {"python", "{code-cell} ipython3"} <= kinds, "one page, one way of running: cells or blocks"
    executed = "file_format: mystnb" in page.read_text()[:60]
    assert executed == ("{code-cell} ipython3" in kinds), "cells without the header that has them executed"


def test_command_lines_are_understood() -> None:
    from jaxinit.cli._main import parser

    lines = [
        line
        for page in SOURCES
        for kind, block in FENCE.findall(page.read_text())
        for line in (block.splitlines() if kind == "bash" else ())
    ]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("jaxinit ")]
    assert len(commands) >= 3
    for words in commands:
        parser().parse_args(words)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {line.split()[1] for line in lines if line.startswith("make ")} <= targets


def test_the_picture_of_the_first_page_is_made_by_its_script(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("picture", ROOT / "docs" / "picture.py")
    assert spec is not None and spec.loader is not None
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    paths = picture.main(tmp_path, tiny=True)
    assert [p.name for p in paths] == ["picture.png", "picture-dark.png"]
    for path in paths:
        assert path.stat().st_size > 10_000 and (ROOT / "docs" / "_static" / path.name).exists()
