"""The experiment runs end to end at its tiny size: records, figure, outcome."""

import importlib.util
from pathlib import Path

import jax
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "correlation_trajectories"


def script(name: str):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(f"correlation_trajectories.{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_tiny(tmp_path: Path) -> None:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        out = script("run").main(tmp_path / "out", tiny=True)
        figure = script("figure")
        assert figure.main(out, tmp_path / "figure.png").stat().st_size > 10_000
        assert figure.outcome(out)
