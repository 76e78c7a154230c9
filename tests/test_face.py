"""The public face: every name loads, the table is what type checkers see, importing is instant."""

import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest

import jaxinit as ji

SOURCE = Path(ji.__file__)


def checked_names() -> set[tuple[str, str]]:
    """(area, name) of the imports that type checkers see."""
    body = ast.parse(SOURCE.read_text()).body
    (block,) = [n for n in body if isinstance(n, ast.If)]
    return {(n.module, a.name) for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}


def test_type_checkers_see_the_table() -> None:
    table = {(f"jaxinit.{area}", name) for name, area in ji._AREA.items()} | {
        ("jaxinit", a) for a in ji._AREAS
    }
    assert table == checked_names()


@pytest.mark.parametrize("name", sorted(ji.__all__))
def test_every_name_loads_and_is_documented(name: str) -> None:
    value = getattr(ji, name)
    assert value.__doc__
    assert isinstance(value, types.ModuleType) == (name in ji._AREAS)


def test_functions_win_over_areas_of_their_name() -> None:
    code = (
        "import jaxinit.simulate, jaxinit.simulate._dense, jaxinit as ji, types\n"
        "assert callable(ji.simulate) and not isinstance(ji.simulate, types.ModuleType)\n"
        "from jaxinit.simulate import _statistics\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_is_lazy() -> None:
    code = "import jaxinit, sys; assert not {'jax', 'flax', 'matplotlib', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'he_norml'"):
        ji.he_norml  # type: ignore[attr-defined]
