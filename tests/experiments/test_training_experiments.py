"""The experiments on training run end to end at their tiny size: records, figure, outcome; again from their files."""

import importlib.util
from pathlib import Path

import jax
import pytest

FOLDER = Path(__file__).parents[2] / "experiments"


def script(folder: str, name: str):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(f"{folder}.{name}", FOLDER / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["he_2015", "four_initializers", "trainable_depth"])
def test_tiny(folder: str, tmp_path: Path) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run, figure = script(folder, "run"), script(folder, "figure")
        out = run.main(tmp_path / "out", tiny=True)
        rows = figure.outcome(out)
        assert figure.main(out, tmp_path / "figure.png").stat().st_size > 10_000
        assert rows and figure.outcome(run.main(out, tiny=True)) == rows
