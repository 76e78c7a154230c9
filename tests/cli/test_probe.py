"""`jaxinit probe`: models by name, inputs by shape, findings as an exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxinit.cli import main
from jaxinit.cli._model import argument, load

SOURCE = """
import flax.linen as nn
import jaxinit as ji


class Net(nn.Module):
    features: int = 8

    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.relu(nn.Dense(16, kernel_init=ji.he_normal())(x))
        return nn.Dense(self.features)(x)


net = Net()


def broken():
    return nn.Sequential([nn.Dense(8, kernel_init=ji.zeros()), nn.relu, nn.Dense(4)])


class Wrapped:
    inner = net
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some_model.py"
    path.write_text(SOURCE)
    return path


def test_models_by_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = load(f"{file}:net")
    assert type(net).__name__ == "Net"
    assert load(f"{file}:Net").features == 8  # made, since it takes no arguments
    assert type(load(f"{file}:Wrapped.inner")).__name__ == "Net"
    assert type(load(f"{file}:broken")).__name__ == "Sequential"
    monkeypatch.chdir(file.parent)
    monkeypatch.delitem(__import__("sys").modules, "some_model", raising=False)
    assert type(load("some_model:net")).__name__ == "Net"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some_model.py", "write MODULE:NAME"),
        ("{file}:nett", "Did you mean"),
        ("no_such_package.models:net", "run this in the folder that holds it"),
    ],
)
def test_names_that_lead_nowhere(file: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(name.format(file=file))


def test_files_that_are_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        load("/nowhere/model.py:net")


def test_inputs(tmp_path: Path) -> None:
    assert argument("32x7", 0).shape == (32, 7)
    words = argument("4x16:int:50", 0)
    assert words.shape == (4, 16) and words.dtype == np.int32 and words.min() >= 0 and words.max() < 50
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(argument(str(tmp_path / "x.npy"), 0), np.ones((2, 3)))
    for wrong in ("32,7x", "ax3", "0x4", "4x4:int", "4x4:float:3", "4x4:int:0"):
        with pytest.raises(ValueError, match="--input"):
            argument(wrong, 0)


def test_findings_set_the_exit_code(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", f"{file}:broken", "--input", "8x16", "--seeds", "2"]
    assert main([*words, "--json", "--fail-on", "error", "--out", str(tmp_path / "out")]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "probe" and document["findings"][0]["severity"] == "error"
    assert {Path(f).name for f in document["files"]} >= {"broken.npz", "diagnosis.npz", "report.html"}


def test_a_healthy_model_passes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", f"{file}:net", "--input", "8x16", "--seeds", "4", "--fail-on", "warning"]) == 0
    out = capsys.readouterr().out
    assert "Dense_0" in out and "alive" in out
    assert main(["probe", f"{file}:net", "--input", "8x16:int"]) == 2
    assert "--input" in capsys.readouterr().err
