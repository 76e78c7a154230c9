"""The experiment runs end to end at its tiny size: records and table."""

import importlib.util
from pathlib import Path

import jax
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "which_initializer"


@pytest.mark.slow
def test_tiny(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("which_initializer.run", FOLDER / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        table = run.table(run.main(tmp_path / "out", tiny=True))
    assert len(table.splitlines()) == 2 + -(-len(list(run.pairs())) // 4) and "nan" not in table
