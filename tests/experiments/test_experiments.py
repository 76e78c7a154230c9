"""Every experiment runs end to end at its tiny size: records, figure, table; a study goes on from its files."""

import runpy
import sys
from pathlib import Path

import jax
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NAMES = sorted(path.parent.name for path in EXPERIMENTS.glob("*/run.py"))
#: Those that have tests of their own.
ELSEWHERE = ("diagnose_zoo", "diagnose_models")


@pytest.fixture
def command(monkeypatch, capsys):
    """`python experiments ...` in this process; returns what it printed."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["experiments", *arguments])
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            runpy.run_path(str(EXPERIMENTS), run_name="__main__")
        return capsys.readouterr().out

    monkeypatch.setattr(sys, "path", list(sys.path))
    return call


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ELSEWHERE])
def test_tiny(name: str, tmp_path: Path, command) -> None:
    table = command(name, "--tiny", "--out", str(tmp_path))
    assert len(table.splitlines()) > 1
    if (EXPERIMENTS / name / "figure.py").is_file():
        assert (tmp_path / "figure.png").stat().st_size > 10_000
    resumes = bool(list(tmp_path.glob("unfinished_*.npz")))
    assert command(name, "--tiny", *([] if resumes else ["--again"]), "--out", str(tmp_path)) == table


@pytest.mark.parametrize(
    ("arguments", "said"), [(["none"], "invalid choice"), (["bf16_draws", "--data", "x"], "data of its own")]
)
def test_what_the_command_refuses(arguments, said, command, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(*arguments)
    assert said in capsys.readouterr().err


def test_every_experiment_says_what_was_found() -> None:
    for page in EXPERIMENTS.glob("*/README.md"):
        text, name = page.read_text(), page.parent.name
        assert "**Claim**" in text and "**Outcome" in text and f"python experiments {name}" in text, name
        assert (page.parent / "figure.png").is_file() == ("(figure.png)" in text), name
