"""Files: what is sealed is read whole, and no byte of it can change unseen."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from jaxinit._core import files

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yz"]), "c": np.zeros((0, 2), np.uint8)}


@pytest.mark.parametrize("compress", [True, False])
def test_round_trip_and_numpy_reads_it(tmp_path: Path, compress: bool) -> None:
    files.write_arrays(tmp_path / "deep" / "x.npz", ARRAYS, compress=compress)
    found = files.read_arrays(tmp_path / "deep" / "x.npz")
    assert found.keys() == ARRAYS.keys()
    with np.load(tmp_path / "deep" / "x.npz", allow_pickle=False) as plain:
        for name, value in ARRAYS.items():
            assert np.array_equal(found[name], value) and np.array_equal(plain[name], value)


def test_every_damaged_byte_is_seen() -> None:
    content = files.pack_arrays(ARRAYS)
    for i in range(len(content)):
        for bit in (1, 0x80):
            bad = bytearray(content)
            bad[i] ^= bit
            with pytest.raises(ValueError):
                files.unpack_arrays(bytes(bad))


def test_every_truncation_is_seen() -> None:
    content = files.pack_arrays(ARRAYS)
    for length in range(len(content)):
        with pytest.raises(ValueError):
            files.unpack_arrays(content[:length])


def test_archives_of_other_writers_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", **ARRAYS)
    assert files.read_arrays(tmp_path / "plain.npz").keys() == ARRAYS.keys()
    with pytest.raises(ValueError):
        files.unpack_arrays(zlib.compress(b"no archive"))
