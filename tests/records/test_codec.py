"""Files: what is saved is read again, whole or not at all."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import jaxinit as ji
from jaxinit.records import Propagation, Record, Statistic, _codec, provenance, saved


def propagation() -> Propagation:
    rng = np.random.default_rng(0)
    return Propagation(
        "simulation", ("1", "2", "3"), 2, ((0, 1),),
        second_moment=Statistic.of(rng.random((5, 3, 2)), keep=True),
        log_second_moment=Statistic.of(rng.normal(size=(5, 3, 2))),
        correlation=Statistic.of(np.full((5, 3, 1), np.nan)),
        config={"label": "x", "seeds": np.arange(5), "nested": {"a": (1, 2.5, None, float("inf"))}},
        provenance=provenance(),
    )  # fmt: skip


def same(a: object, b: object) -> bool:
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
        )
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def test_round_trip(tmp_path: Path) -> None:
    record = propagation()
    path = record.save(tmp_path / "deep" / "run.npz")
    assert same(record, ji.load(path))
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


def test_no_pickle_inside(tmp_path: Path) -> None:
    with np.load(propagation().save(tmp_path / "run.npz"), allow_pickle=False) as archive:
        assert all(not archive[name].dtype.hasobject for name in archive.files)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, keep: float) -> None:
    path = propagation().save(tmp_path / "run.npz")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match="not a whole jaxinit record"):
        ji.load(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = propagation().save(tmp_path / "run.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="not a whole jaxinit record"):
        ji.load(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    np.savez(tmp_path / "pickled.npz", x=np.array([object()], dtype=object))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="no jaxinit record"):
        ji.load(tmp_path / "other.npz")
    for name in ("pickled.npz", "text.npz"):
        with pytest.raises(ValueError, match="not a whole jaxinit record"):
            ji.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"path="):
        ji.load(tmp_path / "absent.npz")


def test_newer_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_codec, "VERSION", 99)
    path = propagation().save(tmp_path / "run.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="newer jaxinit"):
        ji.load(path)


@pytest.mark.parametrize("nowhere", [None, 3, "", b"x"], ids=repr)
def test_what_is_no_path_is_refused(nowhere) -> None:
    for call in (propagation().save, ji.load):
        with pytest.raises(TypeError, match=r"path=...\)` must be a path"):
            call(nowhere)


def test_what_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path = propagation().save(tmp_path / "run.npz")
    before = path.read_bytes()
    bad = dataclasses.replace(propagation(), config={"f": lambda: None})
    with pytest.raises(TypeError, match="cannot be saved"):
        bad.save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = propagation().save(tmp_path / "run.npz")
    before = path.read_bytes()

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_codec.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        propagation().save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_other_records_can_register(tmp_path: Path) -> None:
    @saved
    @dataclasses.dataclass(frozen=True)
    class Small(Record):
        x: np.ndarray
        note: str

    again = ji.load(Small(np.arange(3), "n").save(tmp_path / "s.npz"))
    assert type(again) is Small and again.note == "n" and again.x.tolist() == [0, 1, 2]
