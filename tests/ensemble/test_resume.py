"""Runs on disk: what was finished is not computed again, what is damaged is, and nothing else is trusted."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit import ensemble
from jaxinit.ensemble import _devices, _engine

SEEDS = np.arange(20, dtype=np.uint32)


def one(key: jax.Array, data: jax.Array) -> dict[str, jax.Array]:
    bits = jax.random.bits(key, (2,), jnp.uint16).astype(jnp.float32)
    return {"x": jnp.sin(bits) * data}


def run(folder: Path | None, **change: object) -> tuple:
    options = {
        "data": jnp.float32(1.0), "seeds": SEEDS, "chunk": 4, "devices": 1, "keep": True,
        "configuration": {"law": "he", "width": 3}, **change,
    }  # fmt: skip
    return ensemble.run(one, options.pop("data"), options.pop("seeds"), resume=folder, **options)  # type: ignore[arg-type]


def same(a: tuple, b: tuple) -> None:
    for name, moments in a[0].items():
        for field in ("count", "mean", "m2", "min", "max"):
            np.testing.assert_array_equal(getattr(moments, field), getattr(b[0][name], field), strict=True)
        np.testing.assert_array_equal(a[1][name], b[1][name], strict=True)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the chunks that are computed."""
    numbers: list[int] = []
    call = _engine._Program.__call__

    def spy(self: _engine._Program, chunks: list[int]) -> object:
        numbers.extend(chunks)
        return call(self, chunks)

    monkeypatch.setattr(_engine._Program, "__call__", spy)
    return numbers


def stop_after(chunks: int) -> object:
    def progress(done: int, total: int) -> None:
        if done >= 4 * chunks:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path: Path, computed: list[int]) -> None:
    whole = run(None)
    computed.clear()
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(tmp_path / "run", progress=stop_after(2))
    assert (
        "the same call goes on" in stopped.value.__notes__[0] and str(tmp_path) in stopped.value.__notes__[0]
    )
    assert computed == [0, 1]
    seen: list[tuple[int, int]] = []
    same(run(tmp_path / "run", progress=lambda *now: seen.append(now)), whole)
    assert computed == [0, 1, 2, 3, 4] and seen[-1] == (20, 20)
    same(run(tmp_path / "run"), whole)
    same(run(tmp_path / "run", devices=4), whole)  # cut as it was begun
    assert computed == [0, 1, 2, 3, 4]


def test_a_full_disk_names_the_file_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def full(file: int) -> None:
        if (tmp_path / "chunk-000001.npz").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*chunk-000002\.npz'") as stopped:
            run(tmp_path)
    assert "the same call goes on" in stopped.value.__notes__[0]
    assert not [*tmp_path.glob(".*.part")]
    same(run(tmp_path), run(None))


def test_a_run_begun_on_some_devices_ends_on_others(tmp_path: Path, computed: list[int]) -> None:
    whole = run(None, chunk=None, devices=4)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, chunk=None, devices=4, progress=stop_after(1))
    (tmp_path / "chunk-000002.npz").unlink()
    computed.clear()
    same(run(tmp_path, chunk=None, devices=1), whole)
    assert computed == [2]


@pytest.mark.parametrize(
    ("method", "seed", "error", "kept"),
    [("_here", 0, KeyboardInterrupt, [1, 2]), ("_elsewhere", 4, RuntimeError, [0, 2])],
)
def test_what_other_threads_found_is_kept_when_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, seed: int, error: type, kept: list[int]
) -> None:
    monkeypatch.setattr(_devices, "_cores", lambda: 3 * len(jax.local_devices()))
    whole = run(None, batch=2)
    call = getattr(_engine._Program, method)

    def failing(self: _engine._Program, rows: np.ndarray, counts: np.ndarray) -> object:
        if rows[0] == seed:
            raise error("in one thread of three")
        return call(self, rows, counts)

    with monkeypatch.context() as patched:
        patched.setattr(_engine._Program, method, failing)
        with pytest.raises(error, match="in one thread of three"):
            run(tmp_path, batch=2)
    chunks = {i: tmp_path / f"chunk-00000{i}.npz" for i in kept}
    assert sorted(tmp_path.glob("chunk*")) == sorted(chunks.values())
    stamps = [path.stat().st_mtime_ns for path in chunks.values()]
    same(run(tmp_path, batch=2), whole)
    assert [path.stat().st_mtime_ns for path in chunks.values()] == stamps


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def swap(path: Path) -> None:
    path.write_bytes((path.parent / "chunk-000003.npz").read_bytes())


@pytest.mark.parametrize("damage", [flip, cut, swap])
def test_a_damaged_chunk_is_computed_again(tmp_path: Path, computed: list[int], damage: object) -> None:
    whole = run(tmp_path)
    damage(tmp_path / "chunk-000001.npz")  # type: ignore[operator]
    computed.clear()
    with pytest.warns(UserWarning, match=r"chunk 1 is computed again: .*chunk-000001\.npz' is damaged"):
        same(run(tmp_path), whole)
    assert computed == [1]
    same(run(tmp_path), whole)
    assert computed == [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"configuration": {"law": "xavier", "width": 3}}, "law = 'he' there, 'xavier' here"),
        ({"configuration": {"law": "he"}}, "width = 3 there, None here"),
        ({"root": 1}, "root = 0 there, 1 here"),
        ({"seeds": SEEDS[:19]}, r"seeds = '0 \.\. 19' there, '0 \.\. 18' here"),
        ({"seeds": SEEDS[::-1]}, "seeds ="),
        ({"data": jnp.float32(2.0)}, "data ="),
        ({"keep": False}, "keep_seeds = True there, False here"),
        ({"chunk": 5}, "chunk = 4 there, 5 here"),
        ({"batch": 2}, "batch = 1 there, 2 here"),
    ],
)
def test_another_configuration_is_refused(
    tmp_path_factory: pytest.TempPathFactory, change: dict, words: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "refusals"
    run(folder)
    with pytest.raises(ValueError, match=rf"run\(resume=...\)` must be the folder of this very run.*{words}"):
        run(folder, **change)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder"):
        run(tmp_path / "file")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run\.json this jaxinit wrote"):
        run(tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(ValueError, match="no other run is writing to"):
            run(tmp_path)

    run(tmp_path, progress=meanwhile)
    run(tmp_path)


def test_the_folder_holds_whole_files_that_numpy_reads(tmp_path: Path) -> None:
    (tmp_path / ".chunk-000001.npz.abc.part").write_text("half")
    run(tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [".lock-0", *(f"chunk-00000{i}.npz" for i in range(5)), "run.json"]
    plan = json.loads((tmp_path / "run.json").read_text())
    assert plan["configuration"]["law"] == "he" and plan["size"] == 4
    with np.load(tmp_path / "chunk-000000.npz", allow_pickle=False) as archive:
        assert archive["mean"].shape == (2,)


_KILLED = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jaxinit import ensemble

def one(key, data):
    bits = jax.random.bits(key, (2,), jnp.uint16).astype(jnp.float32)
    return {"x": jnp.sin(bits) * data}

def progress(done, total):
    print(done, flush=True)
    if len(sys.argv) > 2:
        sys.stdin.read()  # until the parent kills this process

moments, samples = ensemble.run(
    one, jnp.float32(1.0), np.arange(20, dtype=np.uint32), chunk=4, devices=1, keep=True,
    configuration={"law": "he", "width": 3}, resume=sys.argv[1], progress=progress,
)
print(moments["x"].m2.tobytes().hex(), samples["x"].tobytes().hex())
"""


def test_a_killed_process_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "run"
    script.write_text(_KILLED)

    def start(*words: str) -> subprocess.Popen:
        command = [sys.executable, str(script), *words]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with start(str(folder), "wait") as process:
        assert process.stdout is not None and process.stdout.readline() == "4\n"
        process.send_signal(signal.SIGKILL)
    first = folder / "chunk-000000.npz"
    stamp = first.stat().st_mtime_ns
    assert list(folder.glob("chunk*")) == [first]
    with start(str(folder)) as process:
        last = process.communicate(timeout=120)[0].splitlines()[-1]
    assert first.stat().st_mtime_ns == stamp
    moments, samples = run(None)
    assert last == f"{moments['x'].m2.tobytes().hex()} {samples['x'].tobytes().hex()}"
