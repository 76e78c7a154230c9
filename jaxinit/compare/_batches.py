"""Data that come in batches: any iterable of them, or a factory of such an iterable, gathered into arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxinit._core import checks

#: Bytes that are gathered at most when no limit is given: an iterable may have no end.
MOST_BYTES = 1 << 31
#: The names under which a batch that is a dict may hold examples and targets.
_NAMES = (("x", "y"), ("image", "label"), ("inputs", "targets"), ("features", "labels"))
_RULE = "batches (x, y), or dicts with " + " or ".join(f"{x!r} and {y!r}" for x, y in _NAMES)


def is_pair(data: Any) -> bool:
    """Whether the data are `(x, y)` arrays, not two batches."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    return not all(isinstance(part, (tuple, Mapping)) for part in data)


def is_batches(data: Any) -> bool:
    """Whether the data can be asked for batches: an iterable, or a callable that makes one."""
    return callable(data) or (isinstance(data, Iterable) and not isinstance(data, np.ndarray))


def gather(data: Iterable[Any] | Callable[[], Iterable[Any]], limit: int | None) -> tuple[Any, Any]:
    """All examples and targets, or the first `limit` of them.

    Raises:
        ValueError: there are no batches, they do not fit each other, or they do not end.
        TypeError: what comes is no batch.
    """
    batches = data() if callable(data) else data
    if not isinstance(batches, Iterable):
        raise checks.wrong_type("compare", "data", "a callable that returns an iterable of batches", batches)
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    count = size = 0
    for batch in batches:
        x, y = _pair(batch)
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            rule = "batches of examples and as many targets"
            raise checks.bad("compare", "data", rule, (x.shape, y.shape))
        if xs and (x.shape[1:] != xs[0].shape[1:] or y.shape[1:] != ys[0].shape[1:]):
            raise checks.bad("compare", "data", "batches of one shape", (x.shape, xs[0].shape))
        # copied: loaders write the next batch into the same memory
        xs.append(np.array(x))
        ys.append(np.array(y))
        count, size = count + len(x), size + x.nbytes
        if limit is not None and count >= limit:
            break
        if limit is None and size > MOST_BYTES:
            way_out = "Say how many examples to take: load_data(data, limit=...)."
            raise checks.bad(
                "compare", "data", "at most 2 GiB where no limit is set", f"{count} examples", way_out
            )
    if not xs:
        raise checks.bad(
            "compare", "data", "at least one batch", data, "A generator is empty once it was read."
        )
    return np.concatenate(xs)[:limit], np.concatenate(ys)[:limit]


def _pair(batch: Any) -> Sequence[np.ndarray]:
    if isinstance(batch, Mapping):
        found = [names for names in _NAMES if set(names) <= set(batch)]
        if not found:
            raise checks.wrong_type("compare", "data", _RULE, sorted(map(str, batch)))
        batch = [batch[name] for name in found[0]]
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise checks.wrong_type("compare", "data", _RULE, batch)
    return [np.asarray(part) for part in batch]
