"""Folders of data in the formats of their publishers: IDX files (MNIST and kin), CIFAR-10 python batches."""

from __future__ import annotations

import gzip
import io
import pickle  # noqa: TID251 (the CIFAR publishers' format; read below by an unpickler that makes arrays alone)
from pathlib import Path
from typing import Any

import numpy as np

Part = tuple[np.ndarray, np.ndarray]

#: The types of IDX files, by their code.
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX = {
    "x_train": "train-images*idx3-ubyte*",
    "y_train": "train-labels*idx1-ubyte*",
    "x_test": "t10k-images*idx3-ubyte*",
    "y_test": "t10k-labels*idx1-ubyte*",
}
_CIFAR_TRAIN, _CIFAR_TEST = [f"data_batch_{i}" for i in range(1, 6)], "test_batch"

LAYOUTS = (
    "train-images-idx3-ubyte and its three companions (plain or .gz), or data_batch_1 .. 5 and test_batch"
)


def read_folder(folder: Path) -> tuple[Part, Part] | None:
    """Training and test part of a folder in a known layout; None if there is none."""
    idx = {part: sorted(folder.glob(pattern)) for part, pattern in _IDX.items()}
    if all(idx.values()):
        x_train, y_train, x_test, y_test = (read_idx(files[0]) for files in idx.values())
        return (x_train, y_train), (x_test, y_test)
    train = [folder / name for name in _CIFAR_TRAIN if (folder / name).is_file()]
    test = folder / _CIFAR_TEST
    if train and test.is_file():
        parts = [read_cifar(path) for path in train]
        x = np.concatenate([x for x, _ in parts])
        return (x, np.concatenate([y for _, y in parts])), read_cifar(test)
    return None


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file (LeCun's format: 0, 0, type, dimensions, sizes, big-endian data), maybe .gz.

    Raises ValueError if the file is truncated or of another kind.
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise ValueError(f"{path} is no IDX file: it does not begin with 0, 0, a type and a number of axes.")
    dtype, axes = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    start = 4 + 4 * axes
    shape = tuple(int(n) for n in np.frombuffer(raw[4:start], ">u4")) if len(raw) >= start else (-1,)
    size = int(np.prod(shape)) * dtype.itemsize
    if len(raw) - start != size:
        raise ValueError(
            f"{path} is no whole IDX file: {max(len(raw) - start, 0)} bytes of data, {size} announced."
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


class _ArraysOnly(pickle.Unpickler):
    """Makes NumPy arrays and plain values; any other name in the file is an error, so nothing can run."""

    _modules = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
    _names = ("_reconstruct", "ndarray", "dtype")

    def find_class(self, module: str, name: str) -> Any:
        if module in self._modules and name in self._names:
            return {"_reconstruct": np.ndarray(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}[
                name
            ]
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no batch of images needs")


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def read_cifar(path: Path) -> Part:
    """Images `(n, 32, 32, 3)` and labels of a CIFAR-10 python batch."""
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        images = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), np.asarray(batch[b"labels"], np.int32)
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
    ) as error:
        raise ValueError(f"{path} is no whole CIFAR-10 python batch: {error}.") from error
