"""Two real processes on this machine give what one process gives, to the bit, and can be stopped and resumed."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ports import held_port

from jaxinit import ensemble

_PROGRAM = """
import sys
import jax
port, index, folder, out = sys.argv[1:5]
from jaxinit import ensemble
ensemble.initialize(f"127.0.0.1:{port}", 2, int(index))
ensemble.initialize(f"127.0.0.1:{port}", 2, int(index))  # joined already
import jax.numpy as jnp, numpy as np

def one(key, data):
    bits = jax.random.bits(key, (2,), jnp.uint16).astype(jnp.float32)
    return {"x": jnp.sin(bits) * data}

assert jax.process_count() == 2 and jax.device_count() == 4 and jax.local_device_count() == 2
options = {"root": 3, "chunk": 2, "keep": True, "configuration": {"law": "he"}}
seen = []
moments, samples = ensemble.run(
    one, jnp.float32(1.0), np.arange(19, dtype=np.uint32), resume=folder,
    progress=lambda *now: seen.append(now), **options,
)
fields = {f: getattr(moments["x"], f) for f in ("count", "mean", "m2", "min", "max")}
np.savez(out, samples=samples["x"], seen=np.array(seen), **fields)
seeds = np.arange(19, dtype=np.uint32)
one_device, _ = ensemble.run(one, jnp.float32(1.0), seeds, devices=1, batch=1 + int(index), **options)
assert one_device["x"].m2.tobytes() == moments["x"].m2.tobytes()  # process 1 owns none of it, and has it all
try:
    ensemble.run(one, jnp.float32(1.0), seeds[int(index):], **options)
except ValueError as error:
    assert "seeds is '0 .. 18' in process 0 and '18 seeds from 1 to 18" in str(error), error
else:
    raise AssertionError("processes that run other seeds are not told apart")
def fail(done, total):
    if index == "1":
        raise OSError("disk full")

try:
    ensemble.run(one, jnp.float32(1.0), np.arange(19, dtype=np.uint32), progress=fail, **options)
except (ValueError, OSError) as error:
    assert str(error) == ("disk full" if index == "1" else "process 1: disk full"), error
else:
    raise AssertionError("a process failed unheard")
if index == "1":
    options["configuration"] = {"law": "xavier"}
try:
    ensemble.run(one, jnp.float32(1.0), np.arange(19, dtype=np.uint32), resume=sys.argv[3], **options)
except ValueError as error:
    assert ("process 1: " in str(error)) == (index == "0") and "'xavier' here" in str(error), error
else:
    raise AssertionError("one process refuses, the other waits forever")
jax.distributed.shutdown()
"""


def one(key: jax.Array, data: jax.Array) -> dict[str, jax.Array]:
    bits = jax.random.bits(key, (2,), jnp.uint16).astype(jnp.float32)
    return {"x": jnp.sin(bits) * data}


def start_two(tmp_path: Path) -> list[dict[str, np.ndarray]]:
    script = tmp_path / "program.py"
    script.write_text(_PROGRAM)
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=2")
    outs = [tmp_path / f"out{i}.npz" for i in range(2)]
    with held_port() as port:
        processes = [
            subprocess.Popen(
                [sys.executable, str(script), str(port), str(i), str(tmp_path / "run"), str(outs[i])],
                stderr=subprocess.PIPE, text=True, env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            )
            for i in range(2)
        ]  # fmt: skip
        try:
            for process in processes:
                _, error = process.communicate(timeout=120)
                assert process.returncode == 0, error
        finally:
            for process in processes:
                process.kill()
    return [dict(np.load(out)) for out in outs]


@pytest.fixture(scope="module")
def alone() -> tuple:
    """What one process with four devices finds."""
    seeds = np.arange(19, dtype=np.uint32)
    return ensemble.run(one, jnp.float32(1.0), seeds, root=3, chunk=2, keep=True, devices=4)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, np.ndarray]]]:
    """The folder of a run by two processes, and what each found."""
    folder = tmp_path_factory.mktemp("two")
    return folder, start_two(folder)


def test_two_processes_are_one(alone: tuple, first: tuple) -> None:
    moments, samples = alone
    folder, figures = first
    # 10 chunks go to devices 0 .. 3 in turn, two of each process; the last one holds one seed.
    assert [f["seen"][-1].tolist() for f in figures] == [[11, 11], [8, 8]]
    for found in figures:
        np.testing.assert_array_equal(found["samples"], samples["x"], strict=True)
        for field in ("count", "mean", "m2", "min", "max"):
            np.testing.assert_array_equal(found[field], getattr(moments["x"], field), strict=True)
    names = {p.name for p in (folder / "run").iterdir()}
    assert names == {".lock-0", ".lock-1", "run.json", *(f"chunk-00000{i}.npz" for i in range(10))}


@pytest.mark.slow
def test_two_processes_go_on_where_they_stopped(alone: tuple, first: tuple) -> None:
    run = first[0] / "run"
    stamps = {p.name: p.stat().st_mtime_ns for p in run.glob("chunk*")}
    (run / "chunk-000003.npz").unlink()
    again = start_two(first[0])
    kept = {p.name: p.stat().st_mtime_ns for p in run.glob("chunk*")}
    assert {name for name in stamps if kept[name] != stamps[name]} == {"chunk-000003.npz"}
    for found in again:
        np.testing.assert_array_equal(found["samples"], alone[1]["x"], strict=True)


@pytest.mark.parametrize("given", [("127.0.0.1:1", None, None), (None, 2, 0), (None, None, 1)])
def test_a_part_of_the_address_is_refused(given: tuple) -> None:
    with pytest.raises(ValueError, match="together, or none of them"):
        ensemble.initialize(*given)
