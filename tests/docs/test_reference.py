"""The reference is complete: every public name is on one of its pages, once, and every page is in its index."""

import importlib
import re
import types
from pathlib import Path

import pytest

import jaxinit

PAGES = {p.stem: p.read_text() for p in (Path(__file__).parents[2] / "docs" / "api").glob("*.md")}
DIRECTIVE = re.compile(
    r"^\.\. (?:(currentmodule):: (\S+)|auto(?:function|class|data|exception):: (\S+))", re.M
)
AREAS = (
    "activations", "adapt", "compare", "diagnose", "ensemble", "implicit", "initializers", "meanfield", "models",
    "plot", "probe", "records", "report", "simulate", "spectra",
)  # fmt: skip


def documented() -> list[str]:
    """Full names, in order, of what the pages document."""
    found = []
    for text in PAGES.values():
        module = ""
        for kind, where, name in DIRECTIVE.findall(text):
            module = where if kind else module
            if name:
                found.append(f"{module}.{name}")
    return found


def exported(area: str) -> dict[str, object]:
    """What the `__init__` of an area says is public."""
    module = importlib.import_module(f"jaxinit.{area}")
    names = re.findall(r"import \w+ as (\w+)$", Path(module.__file__).read_text(), re.M)
    found = {name: getattr(module, name) for name in names}
    return {n: v for n, v in found.items() if not isinstance(v, types.ModuleType)}


def resolve(name: str) -> object:
    """The object of a documented name, reached as a user reaches it."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_nothing_is_documented_twice() -> None:
    names = documented()
    assert sorted(names) == sorted(set(names))


def test_every_documented_name_exists() -> None:
    assert [name for name in documented() if resolve(name) is None] == []


@pytest.mark.parametrize("area", AREAS)
def test_every_public_name_is_documented(area: str) -> None:
    known = [resolve(name) for name in documented()]
    names = [n for n, v in exported(area).items() if not any(v is k for k in known)]
    assert names == []


def test_every_name_of_the_package_is_documented() -> None:
    known = [resolve(name) for name in documented()]
    values = {n: getattr(jaxinit, n) for n in jaxinit.__all__}
    missing = [
        n for n, v in values.items() if not isinstance(v, types.ModuleType) and not any(v is k for k in known)
    ]
    assert missing == []


def test_other_names_of_a_function_are_told() -> None:
    everything = "".join(PAGES.values())
    told = set(re.findall(r"\w+", everything))
    assert set(jaxinit.__all__) - set(jaxinit._AREAS) <= told


def test_every_page_is_in_the_index() -> None:
    listed = re.findall(r"^([a-z_]+)$", PAGES["index"].split("```{toctree}")[1], re.M)
    assert sorted(listed) == sorted(set(PAGES) - {"index"})
