"""A run on disk: what is computed, and one file a finished chunk, so that a run that was cut short goes on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jaxlib
import numpy as np

from jaxinit._core import checks
from jaxinit._core.files import read_arrays, write_arrays, write_bytes
from jaxinit.ensemble._chunk import Chunk
from jaxinit.ensemble._split import Split

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows: no lock; files are still written whole)
    fcntl = None  # type: ignore[assignment]

_FORMAT, _VERSION, _PLAN = "jaxinit-run", 1, "run.json"


def describe_seeds(seeds: np.ndarray) -> str:
    """Seeds in a few words that differ for other seeds."""
    if np.array_equal(seeds, np.arange(len(seeds))):
        return f"0 .. {len(seeds) - 1}"
    digest = hashlib.sha256(np.ascontiguousarray(seeds, np.uint32).tobytes()).hexdigest()[:12]
    return f"{len(seeds)} seeds from {seeds[0]} to {seeds[-1]} ({digest})"


def describe_data(data: Any) -> str:
    """A digest of all numbers in a pytree."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def software(platform: str) -> dict[str, Any]:
    """What decides the bits of a figure beside its configuration."""
    flags = jax.config.values
    return {
        "jaxinit": _own_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "platform": platform,
        "x64": bool(flags["jax_enable_x64"]),
        "matmul_precision": str(flags["jax_default_matmul_precision"]),
        "threefry_partitionable": bool(flags["jax_threefry_partitionable"]),
    }


def _own_version() -> str:
    try:
        return importlib.metadata.version("jaxinit")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Folder:
    """The folder of a run, as a context; from `open` to its end it is locked against other runs."""

    def __init__(self, where: str, path: str | os.PathLike[str], configuration: dict[str, Any]) -> None:
        self.where, self.path = where, checks.path(where, "resume", path)
        if self.path.exists() and not self.path.is_dir():
            raise checks.bad(where, "resume", "a folder", str(self.path))
        self.configuration: dict[str, Any] = json.loads(json.dumps(configuration, default=str))
        self.mark = ""
        self._lock: Any = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()
        if isinstance(error, (KeyboardInterrupt, OSError)) and self.mark:  # a full disk, too
            error.add_note(f"Finished chunks are in {str(self.path)!r}: the same call goes on from there.")

    def open(self) -> int | None:
        """Take the folder; seeds a chunk of the run that was begun here, or None if there is none.

        Raises ValueError if another run is at work here, or was begun here with another configuration, or if the
        plan cannot be read; OSError if the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if fcntl is not None:
            self._lock = (self.path / f".lock-{jax.process_index()}").open("a")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise checks.bad(
                    self.where, "resume", "a folder that no other run is writing to", str(self.path),
                    "Wait for that run to end, or name another folder.",
                ) from None  # fmt: skip
        plan = self.path / _PLAN
        if not plan.exists():
            return None
        try:
            there = json.loads(plan.read_text(encoding="utf-8"))
            size, version, old = int(there["size"]), there["version"], dict(there["configuration"])
            known = there["format"] == _FORMAT and version <= _VERSION
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise checks.bad(
                self.where, "resume", f"a folder whose {_PLAN} this jaxinit wrote", str(self.path),
                "Name another folder.",
            )  # fmt: skip
        differences = _differences(old, self.configuration)
        if differences:
            more = f", and {len(differences) - 4} more" if len(differences) > 4 else ""
            raise checks.bad(
                self.where, "resume", "the folder of this very run; it holds another: " + "; ".join(differences[:4])
                + more, str(self.path), "Name another folder, or delete this one.",
            )  # fmt: skip
        self.configuration = old
        return size

    def begin(self, split: Split, chunks: Iterable[int]) -> None:
        """Settle on the split, and say so on disk (one process does); forget half-written files of `chunks`."""
        plan = {
            "format": _FORMAT,
            "version": _VERSION,
            "size": split.size,
            "configuration": self.configuration,
        }
        text = json.dumps(plan, indent=1, sort_keys=True)
        self.mark = hashlib.sha256(text.encode()).hexdigest()
        if jax.process_index() == 0 and not (self.path / _PLAN).exists():
            write_bytes(self.path / _PLAN, text.encode())
        own = {self.file(c).name for c in chunks}
        for part in self.path.glob(".chunk-*.part"):
            if part.name[1:].partition(".npz")[0] + ".npz" in own:
                part.unlink(missing_ok=True)

    def file(self, chunk: int) -> Path:
        """The file of a chunk."""
        return self.path / f"chunk-{chunk:06d}.npz"

    def write(self, chunk: int, content: Chunk) -> None:
        """Put a finished chunk on disk."""
        mark = np.frombuffer(f"{self.mark} {chunk}".encode(), np.uint8)
        write_arrays(self.file(chunk), {"mark": mark, **content.arrays()}, compress=False)

    def read(self, chunk: int) -> Chunk | None:
        """A finished chunk; None if it is not there or, with a warning, if it is damaged."""
        path = self.file(chunk)
        if not path.exists():
            return None
        try:
            arrays = read_arrays(path)
            if arrays.pop("mark").tobytes().decode() != f"{self.mark} {chunk}":
                raise ValueError("it belongs to another run")
            return Chunk.from_arrays(arrays)
        except (ValueError, KeyError, OSError) as error:
            warnings.warn(
                f"chunk {chunk} is computed again: {str(path)!r} is damaged ({error}).", stacklevel=2
            )
            return None


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Where two configurations differ, as `name = old there, new here`."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = []
        for key in {**old, **new}:
            inside = f"{name}.{key}" if name else key
            out += _differences(old.get(key), new.get(key), inside)
        return out
    same = old == new or (old != old and new != new)
    return [] if same else [f"{name} = {old!r} there, {new!r} here"]
