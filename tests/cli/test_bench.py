"""`jaxinit bench`: it times what it says, by both samplers, and keeps the numbers."""

import json
import sys

import jaxinit.simulate  # noqa: F401 (what is measured, replaced below)
from jaxinit.cli import _bench, main

SMALL = ["bench", "--width", "16", "--depth", "3", "--seeds", "4", "--rounds", "1"]


def test_it_times_both_samplers_and_names_the_device(capsys, tmp_path, monkeypatch):
    asked, seconds = [], iter([8.0, 4.0, 0.5, 2.0])

    def timed(call):
        call()
        return next(seconds)

    def simulate(network, seeds, sampler):
        asked.append((network.depth, seeds, sampler))

    monkeypatch.setattr(_bench, "_timed", timed)
    monkeypatch.setattr(sys.modules["jaxinit.simulate"], "simulate", simulate)
    assert main([*SMALL, "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert asked == [(3, 4, "implicit"), (3, 4, "materialized")] * 2  # first calls, then one round
    (row,) = told["rows"]
    assert row["weights"] == 3 * 16**2 and row["first_call"] == {"implicit": 8, "materialized": 4}
    assert row["seconds"] == {"implicit": 0.125, "materialized": 0.5} and row["ratio"] == 4
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert kept["rows"] == [row] and "cpu" in told["device"].lower()


def test_bad_input(capsys):
    assert main([*SMALL, "--rounds", "0"]) == 2
    assert "rounds" in capsys.readouterr().err
