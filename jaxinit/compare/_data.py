"""Data for training comparisons: found on this machine or made, split, standardized; never downloaded."""

from __future__ import annotations

import dataclasses
import importlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit.compare._batches import gather, is_batches, is_pair
from jaxinit.compare._folders import LAYOUTS, read_folder
from jaxinit.compare._synthetic import mnist1d, parity, teacher

__all__ = ["DataNotAvailable", "Dataset", "load_data"]

#: Data sets known by name.
NAMES = ("digits", "mnist1d", "parity", "teacher")
_WAY_OUT = "Pass data=(x, y) arrays, the path of an .npz file or folder, data='digits' or data='mnist1d'."


class DataNotAvailable(FileNotFoundError):
    """The data asked for are not on this machine; nothing was downloaded."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Arrays split for training, validation (choice of learning rates) and test (what is reported).

    `x_*` are float32 with examples first. `y_*` are int32 labels `(n,)` for classification, float32
    `(n, outputs)` for regression. `outputs` is what a model must return for each example: the number of
    classes, or of targets.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    outputs: int

    @property
    def classification(self) -> bool:
        """Whether the targets are labels."""
        return bool(np.issubdtype(self.y_train.dtype, np.integer))

    def baseline(self) -> dict[str, float]:
        """The figures of the best constant answer, on the test part.

        `chance`: accuracy of the most frequent training class; `baseline_loss`: cross-entropy of the training
        frequencies, or mean squared error of the mean training target.
        """
        if not self.classification:
            centre = self.y_train.mean(axis=0)
            return {"baseline_loss": float(np.square(self.y_test - centre).mean())}
        counts = np.bincount(self.y_train, minlength=self.outputs)
        frequency = np.maximum(counts, 1) / counts.sum()
        return {
            "chance": float(np.mean(self.y_test == counts.argmax())),
            "baseline_loss": float(-np.log(frequency[self.y_test]).mean()),
        }

    def __repr__(self) -> str:
        sizes = f"{len(self.x_train)} + {len(self.x_validation)} + {len(self.x_test)}"
        shape = self.x_train.shape[1:]
        return f"Dataset({self.name!r}, {sizes} examples of shape {shape}, {self.outputs} outputs)"


def load_data(
    data: Any = "digits",
    *,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    standardize: str | None = "auto",
    limit: int | None = None,
) -> Dataset:
    """Data for `compare`, from a name, arrays or a file on this machine.

    Args:
        data: "digits" (8x8 handwritten digits of scikit-learn, which carries them), "mnist1d", "parity" or
            "teacher" (made on the spot, see the functions of these names); `(x, y)` arrays with the examples
            first, `y` integer labels `(n,)` or real targets `(n,)` or `(n, outputs)`; or the path of
            an .npz file with x_train, y_train, x_test, y_test (the layout of Keras's mnist.npz), or of a
            folder with IDX files or CIFAR-10 python batches; or an iterable of batches `(x, y)` (a data loader, a
            generator, dicts with "image" and "label"), or a callable that returns one; or a dict with "train",
            "test" and perhaps "validation" to any of arrays, iterables and callables, for parts of one's own.
            Batches are read once, into memory. A Dataset passes unchanged.
        validation: share of the examples kept for validation (of the training part where the file has a test
            part).
        test: share kept for the test, where the file has none.
        seed: of the permutation that splits.
        standardize: "feature" (each to mean 0, variance 1), "global" (one mean and variance for all features;
            right for images, whose corner pixels hardly vary), "auto" (global for images and integer arrays,
            else by feature), or None. Fitted on the training part alone; real targets likewise, by column.
        limit: use at most so many examples for training and validation (and the test, if it is split off),
            drawn by `seed`; of an iterable, the first ones.

    Raises:
        DataNotAvailable: the file or the package that holds the data is not there; says where it looked.
        ValueError, TypeError: arrays that do not fit each other, labels that are no classes, too few
            examples.

    Example:
        >>> from jaxinit.compare import load_data
        >>> load_data("digits")
        Dataset('digits', 1079 + 359 + 359 examples of shape (64,), 10 outputs)
    """
    if isinstance(data, Dataset):
        return data
    checks.number("load_data", "validation", validation, above=0.0, below=1.0)
    checks.number("load_data", "test", test, above=0.0, below=1.0)
    checks.integer("load_data", "seed", seed, at_least=0)
    if standardize is not None:
        checks.choice("load_data", "standardize", standardize, ("auto", "feature", "global"))
    if limit is not None:
        limit = checks.integer("load_data", "limit", limit, at_least=5)
    source = _read(data, limit)
    x, y = source.train
    order = np.random.default_rng(seed).permutation(len(x))[:limit]
    tests, validations = source.test, source.validation
    whole = len(order)
    if tests is None:
        tested = round(test * whole)
        tests, order = (x[order[:tested]], y[order[:tested]]), order[tested:]
    if validations is None:
        validated = round(validation * whole)
        validations, order = (x[order[:validated]], y[order[:validated]]), order[validated:]
    split = [(x[order], y[order]), validations, tests]
    if min(len(part) for part, _ in split) < 1:
        raise checks.bad(
            "load_data", "data", "enough examples for three parts", f"{len(x)} examples", _WAY_OUT
        )
    if standardize == "auto":
        counts = not np.issubdtype(x.dtype, np.floating)
        standardize = "global" if x.ndim > 2 or counts or source.name == "digits" else "feature"
    return _prepare(source.name, split, standardize)


def _prepare(name: str, split: list[tuple[np.ndarray, np.ndarray]], standardize: str | None) -> Dataset:
    x_train, y_train = split[0]
    scale_x = _scaler(x_train, standardize)
    if np.issubdtype(y_train.dtype, np.integer):
        outputs = int(max(y.max() for _, y in split)) + 1
        train, validation, test = ((scale_x(x), y.astype(np.int32)) for x, y in split)
    else:
        outputs = int(np.prod(y_train.shape[1:], dtype=int))
        scale_y = _scaler(_columns(y_train), None if standardize is None else "feature")
        train, validation, test = ((scale_x(x), scale_y(_columns(y))) for x, y in split)
    return Dataset(name, *train, *validation, *test, outputs=outputs)


def _columns(y: np.ndarray) -> np.ndarray:
    return y.reshape(len(y), -1)


def _scaler(train: np.ndarray, standardize: str | None) -> Any:
    """Shift and scale fitted on the training part, applied in float64, returned in float32."""
    if standardize is None:
        return lambda x: x.astype(np.float32)
    axes = None if standardize == "global" else 0
    mean = train.mean(axis=axes, dtype=np.float64)
    deviation = train.std(axis=axes, dtype=np.float64)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return lambda x: ((x - mean) / deviation).astype(np.float32)


Part = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Source:
    """What was found: examples and targets, and the held-out parts that the source has of its own."""

    name: str
    train: Part
    test: Part | None = None
    validation: Part | None = None


def _read(data: Any, limit: int | None) -> _Source:
    if isinstance(data, str) and data in NAMES:
        make = {"digits": _digits, "mnist1d": mnist1d, "parity": parity, "teacher": teacher}[data]
        return _Source(data, _checked(*make()))
    if isinstance(data, (str, os.PathLike)):
        path = Path(data).expanduser()
        return _folder(path) if path.is_dir() else _npz(path, data)
    if isinstance(data, Mapping):
        return _parts(data, limit)
    if is_pair(data) or is_batches(data):
        return _Source("arrays" if is_pair(data) else "batches", _part(data, limit))
    raise checks.wrong_type(
        "compare", "data", "a name, (x, y) arrays, batches, a path or a Dataset", type(data), _WAY_OUT
    )


def _part(data: Any, limit: int | None) -> Part:
    return _checked(*(data if is_pair(data) else gather(data, limit)))


def _parts(data: Mapping[str, Any], limit: int | None) -> _Source:
    """Parts of one's own. The limit is that of the training part, the others are read whole."""
    known = ("train", "validation", "test")
    if not {"train", "test"} <= set(data) <= set(known):
        rule = "a dict with 'train', 'test' and perhaps 'validation'"
        raise checks.bad("compare", "data", rule, sorted(map(str, data)))
    for name, part in data.items():
        if not (is_pair(part) or is_batches(part)):
            raise checks.wrong_type("compare", "data", f"arrays or batches, but {name!r} is", part)
    parts = {name: _part(part, limit if name == "train" else None) for name, part in data.items()}
    return _Source("parts", *(_alike(parts, name) for name in ("train", "test", "validation")))


def _alike(parts: Mapping[str, Part], name: str) -> Any:
    if name not in parts:
        return None
    (x, y), (x_train, y_train) = parts[name], parts["train"]
    if x.shape[1:] != x_train.shape[1:] or y.shape[1:] != y_train.shape[1:]:
        raise checks.bad("compare", "data", f"alike in its parts, but {name}", (x.shape, x_train.shape))
    return parts[name]


def _checked(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x), np.asarray(y)
    for what, array in (("x", x), ("y", y)):
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
            raise checks.wrong_type("compare", "data", f"numbers, but {what} holds", array.dtype, _WAY_OUT)
        if array.size == 0 or not np.isfinite(array).all():
            rule = f"finite and not empty, but {what} of shape {array.shape}"
            raise checks.bad("compare", "data", rule, "empty" if array.size == 0 else "nan or inf")
    y = y.astype(np.int32) if y.dtype == bool else y
    if x.ndim < 2 or y.ndim not in (1, 2) or len(x) != len(y):
        rule = "x of shape (n, ...) and y of shape (n,) or (n, outputs)"
        raise checks.bad("compare", "data", rule, (x.shape, y.shape))
    if np.issubdtype(y.dtype, np.integer):
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1 or y.min() < 0:
            rule = "integer labels 0 .. classes - 1 of shape (n,), or real targets"
            found = f"integers of shape {y.shape}, least {y.min()}"
            raise checks.bad("compare", "data", rule, found, "One-hot labels: pass y.argmax(axis=1).")
    return x, y


def _digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataNotAvailable(
            "data='digits' is carried by scikit-learn, which is not installed; jaxinit never downloads. "
            "Do one of: pip install 'jaxinit[data]' | data=(x, y) arrays | data='path/to/file.npz'."
        ) from error
    return datasets.load_digits(return_X_y=True)


def _folder(path: Path) -> _Source:
    parts = read_folder(path)
    if parts is None:
        raise DataNotAvailable(
            f"data={str(path)!r} is a folder without data: looked for {LAYOUTS}. {_WAY_OUT}"
        )
    return _Source(path.name, _checked(*parts[0]), _checked(*parts[1]))


def _npz(path: Path, data: str | os.PathLike[str]) -> _Source:
    if not path.is_file():
        hint = checks.nearest(str(data), NAMES)
        raise DataNotAvailable(
            f"data={str(data)!r} is no known name ({hint}) and no file: looked for {path.absolute()}; "
            f"jaxinit never downloads. {_WAY_OUT}"
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            there = list(archive.files)
            members = {m: archive[m] for m in ("x_train", "y_train", "x_test", "y_test") if m in there}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, AttributeError) as error:
        raise ValueError(
            f"`compare(data={str(data)!r})` is no whole .npz archive of arrays: {error}."
        ) from error
    if len(members) < 4:
        rule = "an .npz with x_train, y_train, x_test, y_test"
        raise checks.bad("compare", "data", rule, f"{path.name} with {', '.join(sorted(there))}", _WAY_OUT)
    parts = {part: _checked(members[f"x_{part}"], members[f"y_{part}"]) for part in ("train", "test")}
    return _Source(path.stem, *(_alike(parts, name) for name in ("train", "test")))
