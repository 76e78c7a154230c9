"""`jaxinit phase`."""

import json

import pytest

from jaxinit.cli import main

GRID = ["--points", "5", "--weight-variance", "0.5", "4"]


def test_prints_the_edge_and_writes_files(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert main(["phase", "tanh", *GRID, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "ordered" in text and "chaotic" in text and "critical σw²" in text
    assert {"tanh.npz", "tanh.png", "report.html"} <= {p.name for p in tmp_path.iterdir()}


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phase", "tanh", *GRID, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 25 and {"q", "chi_1", "phase", "status"} <= rows[0].keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["phase", "tahn"], "tanh"),
        (["phase", "tanh", "--points", "1"], "at least 2"),
        (["phase", "tanh", "--weight-variance", "3", "1"], "LOW below HIGH"),
    ],
)
def test_bad_input(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
