"""The zoo's judgement of an analysis over draws: it finds no bias where there is none, and one that is planted."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

import jaxinit as ji
from jaxinit.records import Statistic

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_a_bias_of_20_percent_is_seen(monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(EXPERIMENTS)
    run = importlib.import_module("_common").script("calibrate_zoo", "run")
    monkeypatch.setattr(run, "SURE", 0.03)
    model = nn.Sequential([nn.Dense(8), nn.leaky_relu, nn.Dense(8), nn.leaky_relu, nn.Dense(4)])
    x, sites = np.random.default_rng(0).normal(size=(6, 8)).astype("f4"), ["layers_2", "layers_4"]
    _, logs = run.by_law(model, x, sites, first=512)
    off, error = run.judged(logs)
    assert (error <= 0.03).all() and (off <= 5 * error).all()

    def biased(*args: Any, **choices: Any) -> Any:
        found = ji.adapt.analyze(*args, **choices)
        return dataclasses.replace(found, second_moment=Statistic.exact(found.second_moment.mean / 1.2))

    monkeypatch.setattr(ji, "analyze", biased)  # twin
    off, error = run.judged(run.by_law(model, x, sites, first=512)[1])
    assert (off > 5 * error).all() and (np.abs(off - 0.2) <= 5 * error).all()
