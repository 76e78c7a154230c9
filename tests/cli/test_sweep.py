"""`jaxinit sweep`, and the options of all commands that run ensembles: folders, devices, processes."""

import argparse
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ports import held_port

import jaxinit as ji
from jaxinit.cli import _machine, _options, _saved, main
from jaxinit.simulate import sweep

#: One program for all: its compilation is what takes time here.
SMALL = ["--depth", "2", "--width", "8", "--forward-only", "--devices", "1", "--chunk", "2"]
SWEEP = ["sweep", *SMALL, "--weight-variance", "1:2:3", "--q", "1,4", "--seeds", "4"]
SIMULATE = ["simulate", *SMALL, "--weight-variance", "1,2", "--seeds", "4"]


def test_ranges_and_lists():
    assert _options.values("0,0.5:2:4") == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert _options.integers("10, 50") == [10, 50]
    for text in ("a", "1:2", "1:2:1", "1:2:x", "1:2:3:4"):
        with pytest.raises(argparse.ArgumentTypeError, match="LOW:HIGH:COUNT"):
            _options.values(text)
    with pytest.raises(argparse.ArgumentTypeError, match="integers"):
        _options.integers("1.5")
    assert _machine._address("10.0.0.1:80,4,0") == ("10.0.0.1:80", 4, 0)
    with pytest.raises(argparse.ArgumentTypeError, match="HOST:PORT,COUNT,INDEX"):
        _machine._address("10.0.0.1:80")


def test_a_sweep_tells_and_keeps_what_the_api_finds(capsys, tmp_path):
    assert main([*SWEEP, "--json", "--out", str(tmp_path), "--resume", str(tmp_path / "run")]) == 0
    told = json.loads(capsys.readouterr().out)
    grid = {"weight_variance": [1.0, 1.5, 2.0], "depth": 2, "width": 8, "activation": "relu", "q": [1.0, 4.0]}
    expected = sweep(grid, 4, backward=False, devices=1, chunk=2)
    assert told["axes"] == {"weight_variance": [1, 1.5, 2], "q": [1, 4]} and len(told["points"]) == 6
    found = ji.load(tmp_path / "sweep.npz")
    for name, stat in expected.statistics.items():
        np.testing.assert_array_equal(found[name].mean, stat.mean)
    np.testing.assert_array_equal(
        told["points"][5]["statistics"]["second_moment"]["mean"], expected["second_moment"].mean[2, 1]
    )
    assert {p.name for p in tmp_path.iterdir()} == {
        "sweep.npz",
        "sweep.png",
        "profiles.png",
        "report.html",
        "run",
    }
    labels = list(_saved.load([f"all={tmp_path / 'sweep.npz'}"]))
    assert labels[:2] == ["all", "all: weight_variance=1, q=1"] and len(labels) == 7

    assert main([*SWEEP, "--resume", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "sweep over weight_variance x q (4 seeds)" in out and "⟨z²⟩ out" in out
    assert main([*SWEEP, "--resume", str(tmp_path / "run"), "--correlation", "0"]) == 2
    assert "correlation = 0.5 there, 0.0 here" in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jaxinit.ensemble._folder.Folder.write", stop)
        assert main([*SIMULATE, "--resume", str(tmp_path)]) == 130
    error = capsys.readouterr().err
    assert "jaxinit: interrupted" in error and "the same call goes on from there" in error
    assert main([*SIMULATE, "--resume", str(tmp_path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["records"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["variance-1", "variance-2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SWEEP, "--devices", "9"], "devices"),
        ([*SWEEP, "--devices", "0"], "devices"),
        ([*SWEEP, "--depth", "0,1"], "depth"),
        ([*SWEEP, "--q", "1,1"], "twice on the axis 'q'"),
        ([*SWEEP, "--batch", "0"], "batch"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err and out == ""


@pytest.mark.slow
def test_two_processes_by_the_command_line(tmp_path):
    flags = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=4", "")
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    words = [*SIMULATE, "--devices", "2", "--json"]
    command = [sys.executable, "-m", "jaxinit", *words]
    with held_port() as port:
        two = [
            subprocess.Popen(
                [*command, "--distributed", f"127.0.0.1:{port},2,{i}"], env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for i in range(2)
        ]  # fmt: skip
        try:
            (told, error), (silent, other) = (p.communicate(timeout=200) for p in two)
        finally:
            for process in two:
                process.kill()
    assert [p.returncode for p in two] == [0, 0], error + other
    assert silent == "" and "simulate" not in other and "simulate" in error
    record = ji.simulate(
        ji.Network(2, 8, "relu", weight_variance=2.0), 4, chunk=2, backward=False, devices=2
    ).second_moment
    found = json.loads(told)["records"]["σ²=2"]
    np.testing.assert_allclose(found["statistics"]["second_moment"]["mean"], record.mean, rtol=1e-6)
    assert found["provenance"]["process_count"] == 2 and found["provenance"]["device_count"] == 4
