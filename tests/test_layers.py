"""Imports go one way: the table of the architecture, held against the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "jaxinit"

#: Who may import whom. Nothing goes upward and there are no circles.
TABLE = {
    "_core": "",
    "records": "_core",
    "activations": "_core",
    "ensemble": "_core",
    "initializers": "_core activations",
    "implicit": "_core initializers",
    "network": "_core activations initializers",
    "meanfield": "_core records activations initializers network",
    "spectra": "_core records activations meanfield",
    "simulate": "_core records activations initializers implicit ensemble network",
    "models": "_core initializers implicit",
    "probe": "_core records ensemble implicit models",
    "compare": "_core records initializers ensemble models",
    "diagnose": "_core records meanfield",
    "adapt": "_core records activations initializers meanfield models probe",
    "plot": "_core records diagnose",
    "report": "_core records diagnose plot",
    "cli": "*",
    "__main__": "cli",
    "__init__": "*",
}


def imports(path: Path) -> set[str]:
    """Areas of jaxinit that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [
                f"{node.module}.{a.name}" if node.module == "jaxinit" else str(node.module)
                for a in node.names
            ]
        else:
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("jaxinit.")}
        found |= {"__init__" for name in names if name == "jaxinit"}
    return found


def areas() -> dict[str, list[Path]]:
    """Area -> its files."""
    out: dict[str, list[Path]] = {}
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).parts[0].removesuffix(".py")
        out.setdefault(name, []).append(path)
    return out


def test_every_area_is_in_the_table() -> None:
    assert set(areas()) <= set(TABLE)


@pytest.mark.parametrize("area", sorted(areas()))
def test_imports_go_one_way(area: str) -> None:
    allowed = set(TABLE[area].split()) | {area}
    if "*" in allowed:
        return
    for path in areas()[area]:
        assert imports(path) <= allowed, f"{path.relative_to(ROOT)} imports {imports(path) - allowed}"


def test_the_table_has_no_circles() -> None:
    order = list(TABLE)
    for n, area in enumerate(order):
        below = set(TABLE[area].split()) - {"*", "cli"}
        assert below <= set(order[:n]), area


def test_a_planted_upward_import_is_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from jaxinit.simulate import simulate\n")
    assert imports(bad) == {"simulate"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_private_of_jax(path: Path) -> None:
    assert "jax._src" not in path.read_text()
