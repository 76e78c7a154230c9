"""`jaxinit init-table`: what each parameter got, and an exit code where it is not what was asked."""

import json
import subprocess
import sys

import pytest

import jaxinit as ji
from jaxinit.cli import main

SOURCE = """
import flax.linen as nn
from flax import nnx
import jaxinit as ji


class Liar(nn.Module):
    kernel_init: object = ji.he_normal()

    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", ji.lecun_normal(), (x.shape[-1], 64))


net = nn.Dense(128, kernel_init=ji.glorot_uniform())


def small(rngs):
    return nnx.Linear(64, 32, kernel_init=ji.he_normal(), rngs=rngs)


class Mine(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.only = nnx.Linear(64, 32, kernel_init=ji.he_normal(), rngs=rngs)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "parameters_of.py"
    path.write_text(SOURCE)
    return path


def test_it_tells_and_keeps_what_the_api_finds(file, tmp_path, capsys):
    words = ["init-table", f"{file}:net", "--input", "1x64"]
    assert main([*words, "--json", "--out", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["path"]: row for row in told["parameters"]}
    assert rows["params/kernel"]["matches"] == "glorot_uniform" and rows["params/kernel"]["agrees"] is True
    assert rows["params/kernel"]["asked"] == repr(ji.glorot_uniform()) and told["wrong"] == []
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"net.npz", "net.png", "report.html"}
    code = f"import jaxinit as ji; print(ji.load({str(tmp_path / 'out' / 'net.npz')!r})['params/kernel'].matches)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "glorot_uniform"  # a process that knows of no table yet


def test_a_parameter_that_is_not_as_asked(file, capsys):
    words = ["init-table", f"{file}:Liar", "--input", "1x64", "--plain"]
    assert main([*words, "--fail-on", "mismatch"]) == 3
    out = capsys.readouterr().out
    assert "1 of 1 not as asked" in out and "he_normal()" in out and "lecun_normal" in out
    assert main(words) == 0


def test_nnx_factories_need_no_input_and_seeds_count(file, capsys):
    found = []
    for seed in ("0", "0", "1"):
        assert main(["init-table", f"{file}:small", "--seed", seed, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["parameters"]
        found.append({row["path"]: row["stddev"] for row in rows}["kernel"])
    assert found[0] == found[1] != found[2]
    assert main(["init-table", f"{file}:net"]) == 2
    assert "init_table(x=...)" in capsys.readouterr().err


def test_an_nnx_class_is_a_factory_though_its_metaclass_hides_what_it_takes(file, capsys):
    assert main(["init-table", f"{file}:Mine", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["parameters"]
    assert [row["path"] for row in rows] == ["only/bias", "only/kernel"]
