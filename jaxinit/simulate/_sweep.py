"""Many networks in one call: the grid of all combinations, one `simulate` a point."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxinit import ensemble
from jaxinit._core import checks
from jaxinit.network import Network
from jaxinit.records import Propagation, Sweep
from jaxinit.simulate._simulate import simulate

_SIGNAL = ("q", "correlation", "dtype")
_OPTIONS = (
    "x", "sampler", "approximate", "backward", "record", "keep_seeds", "root", "batch", "chunk", "devices",
)  # fmt: skip


def sweep(
    grid: Mapping[str, Any],
    seeds: Any,
    *,
    resume: str | os.PathLike[str] | None = None,
    progress: bool | ensemble.Progress = False,
    **options: Any,
) -> Sweep:
    """`simulate` at every point of a grid of networks, over the same seeds.

    Points that differ only in numbers (weight and bias variance, numbers of an initializer, alpha and beta of skips,
    dropout, q, correlation) share one compiled program; a bias variance or a dropout of exactly 0 leaves its part out,
    and so is a program of its own, as is every dtype. They run one after the other: each fills the device by its seeds.

    Arguments:
        grid: the arguments of `Network`, and `q`, `correlation` and `dtype`, by name. A list, tuple, range or 1-D array
            is an axis of the grid, in this order; so is a dict, whose keys name the values, as in {"mine": f,
            "tanh": "tanh"}; anything else is the same at all points. Widths that differ by layer are tuples in a
            list, [(64, 32), (64, 64)].
        seeds: as for `simulate`; seed i draws from the same key at every point.
        resume: a folder, as for `simulate`, with a folder in it for every point.
        progress: True for a bar on stderr, or a function of (done, total) seeds of all points.
        options: `x`, `sampler`, `approximate`, `backward`, `record`, `keep_seeds`, `root`, `batch`, `chunk` and
            `devices` of `simulate`.

    Returns:
        A Sweep. `sweep.at(activation="tanh", depth=50)` is the Propagation of one point.

    Raises:
        ValueError, TypeError: an argument breaks its rule; of the networks, before the first one runs.

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.simulate import sweep
        >>> grid = {"depth": 20, "width": 128, "activation": "relu", "weight_variance": [1.0, 2.0]}
        >>> found = sweep(grid, seeds=32)
        >>> found.shape, found["log_second_moment"].mean.shape
        ((2,), (2, 20, 2))
        >>> log_q = found["log_second_moment"].mean[:, -1, 0]
        >>> round(float(log_q[1] - log_q[0]) / 20, 2)  # log 2 a layer
        0.69
    """
    where = "sweep"
    axes, constants = _axes(grid)
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"`sweep(...)` has no argument {name!r}. {checks.nearest(name, _OPTIONS)}")
    top = None if resume is None else checks.path(where, "resume", resume)
    seed_array = checks.seeds(where, "seeds", seeds)
    choices = [
        constants | dict(zip(axes, point, strict=True))
        for point in itertools.product(*(v.values() for v in axes.values()))
    ]
    points = []
    for choice in choices:
        signal = {k: choice[k] for k in _SIGNAL if k in choice}
        points.append((Network(**{k: v for k, v in choice.items() if k not in _SIGNAL}), signal))
    records: list[Propagation] = []
    with ensemble.reporter(progress) as report:
        for i, (network, signal) in enumerate(points):
            folder = None if top is None else top / f"point-{i:05d}"

            def tell(done: int, total: int, before: int = i) -> None:
                report(before * total + done, len(points) * total)

            records.append(simulate(network, seed_array, resume=folder, progress=tell, **signal, **options))
    return Sweep.of({name: tuple(values) for name, values in axes.items()}, records)


def _axes(grid: Any) -> tuple[dict[str, dict[Any, Any]], dict[str, Any]]:
    """Name -> (label -> value) of the axes, and what is the same at all points."""
    where = "sweep"
    if not isinstance(grid, Mapping):
        raise checks.wrong_type(
            where, "grid", "a dict of the arguments of Network", grid,
            "For one network use simulate(network, seeds).",
        )  # fmt: skip
    known = [*(f.name for f in dataclasses.fields(Network)), *_SIGNAL]
    axes: dict[str, dict[Any, Any]] = {}
    constants: dict[str, Any] = {}
    for name, value in grid.items():
        if name not in known:
            raise checks.bad(
                where,
                "grid",
                "of arguments of Network, q, correlation and dtype",
                name,
                checks.nearest(name, known),
            )
        if isinstance(value, (np.ndarray, jax.Array)) and value.ndim == 1:
            value = np.asarray(value).tolist()
        if isinstance(value, Mapping):
            axes[name] = dict(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            labels = [_label(v) for v in value]
            twice = sorted({str(l) for l in labels if labels.count(l) > 1})
            if twice:
                raise checks.bad(
                    where, "grid", f"without a value twice on the axis {name!r}", ", ".join(twice),
                    "Values that go by one name are told apart by a dict: {'a': f, 'b': g}.",
                )  # fmt: skip
            axes[name] = dict(zip(labels, value, strict=True))
        else:
            constants[name] = value
        if name in axes and not axes[name]:
            raise checks.bad(where, "grid", f"with at least one value on the axis {name!r}", value)
    if missing := [name for name in ("depth", "width", "activation") if name not in grid]:
        raise checks.bad(
            where,
            "grid",
            "a dict with depth, width and activation",
            sorted(grid),
            f"Add {', '.join(missing)}.",
        )
    return axes, constants


def _label(value: Any) -> Any:
    """A value as a record holds it: numbers and names stay, others go by their name or what they show."""
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if getattr(value, "shape", None) == () and not callable(value):
        return float(value)
    name = getattr(value, "name", None) or getattr(value, "__name__", None)
    return name if isinstance(name, str) else repr(value)
