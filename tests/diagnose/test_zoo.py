"""The zoo at its tiny size: drawn networks, nothing wrongly accused, every planted fault named."""

import functools
import importlib
import json
from pathlib import Path

import jax
import pytest

import jaxinit as ji
from jaxinit.diagnose import diagnose

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def load(monkeypatch):
    """A file of the experiment as a module, by the experiments' own loader."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return functools.partial(importlib.import_module("_common").script, "diagnose_zoo")


@pytest.fixture
def load_models(load):
    """The same for the zoo of models."""
    return functools.partial(load.func, "diagnose_models")


#: One compiled program: variance -> what `diagnose` has to say of it, in a word.
STACKS = {2.0: "alive", 1.0: "vanishing", 1 / 3: "vanishing", 4.0: "exploding"}


@pytest.mark.parametrize("variance", STACKS)
def test_relu_stacks(variance):
    for root in (0, 1, 2):
        network = ji.Network(24, 32, "relu", variance)
        d = diagnose(ji.simulate(network, 32, root=root))
        assert d.word == STACKS[variance]
        default = {1.0: "lecun_normal", 1 / 3: "PyTorch"}.get(variance)
        named = [f.what for f in d if f.kind == "wrong_default"]
        assert (default in named[0]) if default else not named


@pytest.mark.slow
def test_tiny(tmp_path, load):
    module = load("run")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        out = module.main(tmp_path / "out", tiny=True)
    rows = json.loads((out / "zoo.json").read_text())["rows"]
    assert {r["planted"] for r in rows} >= {"healthy", "vanishing", "exploding", "dead"}
    assert all(r["hit"] == (r["planted"] != "healthy") for r in rows)
    assert "missed of" in module.outcome(out)
    again = module.main(out, tiny=True, again=True)
    assert [r["kinds"] for r in json.loads((again / "zoo.json").read_text())["rows"]] == [
        r["kinds"] for r in rows
    ]


def test_the_halves_share_no_network_and_every_fault(load):
    zoo = load("zoo")
    animals = zoo.zoo()
    halves = [zoo.half(animals, which) for which in ("tuning", "test")]
    assert len(halves[0]) + len(halves[1]) == len(animals)
    assert not {id(a) for a in halves[0]} & {id(a) for a in halves[1]}
    assert len({a.name + repr(a.network) for a in animals}) == len(animals)


@pytest.mark.slow
def test_models_tiny(tmp_path, load_models):
    """Through `probe`: healthy models are left alone; faults are named, in the right place."""
    module = load_models("run")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        out = module.main(tmp_path / "out", tiny=True)
    rows = json.loads((out / "zoo.json").read_text())["rows"]
    assert {r["name"] for r in rows} == set(module.TINY)
    for r in rows:
        assert r["hit"] == bool(r["fault"]) and r["placed"] in (None, True), r["what"]
    table = module.outcome(out)
    assert "| ReLU MLP | one layer ×10 | step | 1 of 1 | 1 of 1 |" in table
    assert module.outcome(module.main(out, tiny=True, again=True)) == table


def test_the_halves_of_the_models_share_no_family(load_models):
    zoo = load_models("zoo")
    animals = zoo.zoo()
    halves = [zoo.half(animals, which) for which in ("tuning", "test")]
    assert len(halves[0]) + len(halves[1]) == len(animals) and len({a.name for a in animals}) == len(animals)
    families = [{a.family for a in half} for half in halves]
    assert not families[0] & families[1] and len(families[0] | families[1]) >= 12
    for half in halves:
        assert any(not a.fault for a in half) and any(a.fault for a in half)
