"""Every experiment runs end to end at its tiny size: records, figure, outcome; a study goes on from its files."""

import sys
from pathlib import Path

import jax
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
#: Those that have tests of their own.
ELSEWHERE = {"diagnose_zoo"}


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import _common

    return _common


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({p.parent.name for p in EXPERIMENTS.glob("*/run.py")} - ELSEWHERE))
def test_tiny(name: str, tmp_path: Path, common) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run = common.script(name, "run")
        found = common.script(name, "figure") if common.draws(name) else run
        out = run.main(tmp_path / "out", tiny=True)
        rows = found.outcome(out)
        assert rows and common.text(rows)
        if found is not run:
            assert found.main(out, tmp_path / "figure.png").stat().st_size > 10_000
        if list(out.glob("unfinished_*.npz")):
            assert found.outcome(run.main(out, tiny=True)) == rows


def test_the_command_knows_every_experiment(monkeypatch, capsys, common) -> None:
    import runpy

    monkeypatch.setattr(sys, "argv", ["experiments", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(EXPERIMENTS), run_name="__main__")
    said = capsys.readouterr().out
    assert all(name in said for name in common.names())
