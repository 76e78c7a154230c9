"""Sweep: Propagations over a grid of networks, in one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit._core import checks
from jaxinit.records._codec import saved
from jaxinit.records._frames import dataset
from jaxinit.records._propagation import STATISTICS, Propagation
from jaxinit.records._record import Record
from jaxinit.records._statistic import Statistic

if TYPE_CHECKING:
    from rich.table import Table

_FIGURES = ("mean", "stderr", "min", "max", "defined")


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sweep(Record):
    """What happens to signal and gradient, site by site, at every point of a grid.

    Attributes:
        axes: name of each axis -> its values (numbers and names), in the order of the grid.
        sites: of every point, an integer array of the grid's shape: networks of a grid may differ in depth.
        inputs, pairs: as in `Propagation`.
        statistics: by name, as in `Propagation`, with the grid's axes in front: `.mean` has shape
            (*grid, sites, inputs), and nan at sites that a point has not. `.samples`, if kept, has the seeds first.
        points: of each point, in C order, what `config` of its Propagation says beyond the common.

    `at` and `propagations` give single points as Propagation records; `plot()` draws heat maps over two axes, or over
    one axis and the layers (`jaxinit.plot.sweep_map`).
    """

    axes: dict[str, tuple[Any, ...]]
    sites: np.ndarray
    inputs: int
    pairs: tuple[tuple[int, int], ...]
    statistics: dict[str, Statistic]
    points: tuple[dict[str, Any], ...]
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(axes: dict[str, tuple[Any, ...]], records: Sequence[Propagation]) -> Sweep:
        """From one Propagation a point, in C order, that recorded the same statistics over the same seeds."""
        grid, first = tuple(len(v) for v in axes.values()), records[0]
        sites = np.array([len(r.sites) for r in records])
        statistics = {
            name: _joined([r[name] for r in records], grid, int(sites.max()))
            for name, _ in first.statistics()
        }
        shown = [{k: v for k, v in r.config.items() if k not in ("seeds", "widths")} for r in records]
        same = [k for k in shown[0] if all(k in s and s[k] == shown[0][k] for s in shown)]
        points = tuple({k: v for k, v in s.items() if k not in same} for s in shown)
        config = {**{k: shown[0][k] for k in same if k != "label"}, "seeds": first.config.get("seeds")}
        labels = tuple({"label": s.get("label"), **p} for s, p in zip(shown, points, strict=True))
        return Sweep(
            axes, sites.reshape(grid), first.inputs, first.pairs, statistics, labels, config, first.provenance
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return tuple(len(v) for v in self.axes.values())

    @property
    def count(self) -> int:
        """Number of seeds of a point."""
        return max((s.count for s in self.statistics.values()), default=0)

    @property
    def label(self) -> str:
        """What the record is of, for tables."""
        return "sweep over " + " x ".join(self.axes) if self.axes else "sweep of one point"

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}: {len(values)}" for name, values in self.axes.items())
        return f"Sweep({axes or 'one point'}; {self.count} seeds: {', '.join(self.statistics)})"

    def __getitem__(self, name: str) -> Statistic:
        """A recorded statistic by name; KeyError names those there are."""
        if name not in self.statistics:
            raise KeyError(f"no statistic {name!r} was recorded. {checks.nearest(name, self.statistics)}")
        return self.statistics[name]

    def at(self, **values: Any) -> Propagation:
        """The point with these values of the axes; an axis of one value may be left out.

        Raises KeyError for a name that is no axis, and for a value that the axis has not.
        """
        for name in values:
            if name not in self.axes:
                raise KeyError(f"no axis {name!r}. {checks.nearest(name, self.axes)}")
        index = []
        for name, held in self.axes.items():
            if name not in values and len(held) > 1:
                raise KeyError(f"the axis {name!r} has {len(held)} values, so at({name}=...) must say which.")
            index.append(_position(name, held, values.get(name, held[0])))
        return self.point(tuple(index))

    def point(self, index: tuple[int, ...]) -> Propagation:
        """The point at these positions of the grid."""
        sites = int(self.sites[index])
        statistics: dict[str, Any] = {}
        for name, stat in self.statistics.items():
            cut = {f: getattr(stat, f)[(*index, slice(sites))] for f in _FIGURES}
            every: tuple[Any, ...] = (slice(None), *index, slice(sites))
            samples = None if stat.samples is None else stat.samples[every]
            statistics[name] = Statistic(**cut, count=stat.count, samples=samples)
        own = self.points[int(np.ravel_multi_index(index, self.shape)) if index else 0]
        return Propagation(
            "simulation",
            tuple(str(l + 1) for l in range(sites)),
            self.inputs,
            self.pairs,
            config={**self.config, **own},
            provenance=self.provenance,
            **statistics,
        )

    def propagations(self, most: int | None = None) -> dict[str, Propagation]:
        """Label -> point, in C order; evenly spaced ones if there are more than `most`.

        `jaxinit.plot.depth_profiles` and `jaxinit.report` take them.
        """
        from jaxinit.records._tables import shown

        places = list(np.ndindex(self.shape))
        kept = shown(len(places), len(places) if most is None else most)
        return {self._name(places[i]): self.point(places[i]) for i in kept}

    def _name(self, index: tuple[int, ...]) -> str:
        varied = [(n, v[i]) for i, (n, v) in zip(index, self.axes.items(), strict=True) if len(v) > 1]
        return ", ".join(f"{n}={_show(v)}" for n, v in varied) or str(self.points[0].get("label"))

    def rows(self) -> list[dict[str, Any]]:
        """One dict a point, site, statistic and input (or pair): the values of the axes, then as in Propagation."""
        out = []
        for index in np.ndindex(self.shape):
            where = {n: v[i] for i, (n, v) in zip(index, self.axes.items(), strict=True)}
            out += [where | row for row in self.point(index).rows()]
        return out

    def to_xarray(self) -> Any:
        """The statistics as an xarray Dataset: dims are the axes, site, input, pair (extra `xarray`)."""
        found = (
            (name, (*self.axes, *STATISTICS[name][1]), STATISTICS[name][0], stat)
            for name, stat in self.statistics.items()
        )
        coordinates = {
            **{name: list(values) for name, values in self.axes.items()},
            "site": [str(l + 1) for l in range(int(self.sites.max()))],
            "input": np.arange(self.inputs),
            "pair": [f"{a},{b}" for a, b in self.pairs],
        }
        return dataset(found, coordinates, self.label)

    def table(self, max_rows: int = 24) -> Table:
        """One row a point: signal and correlation at the last site, gradient at the first; evenly spaced rows.

        Second moments are exp of the mean log over seeds ("typical"), averaged over inputs.
        """
        from rich.text import Text

        from jaxinit.records._fitted import FittedTable
        from jaxinit.records._tables import format_figure, format_log, shown

        known = (
            ("⟨z²⟩ out", "log_second_moment", -1),
            ("⟨(dL/dz)²⟩ in", "log_grad_second_moment", 0),
            ("corr. out", "correlation", -1),
            ("dead out", "dead_fraction", -1),
        )
        columns = [c for c in known if c[1] in self.statistics]
        table = FittedTable(title=Text(f"{self.label} ({self.count} seeds)"), title_justify="left")
        for name in self.axes:
            table.add_column(name, justify="right", no_wrap=True)
        for title, *_ in columns:
            table.add_column(title, justify="right", no_wrap=True)
        places = list(np.ndindex(self.shape))
        for i in shown(len(places), max_rows):
            point, cells = self.point(places[i]), []
            for _, name, site in columns:
                mean, stderr = point[name].mean[site], point[name].stderr[site]
                if name.startswith("log_"):
                    cells.append(format_log(float(mean.mean())))
                elif mean.size:
                    cells.append(format_figure(float(mean.flat[0]), float(stderr.flat[0])))
                else:
                    cells.append("")
            values = [v[k] for k, v in zip(places[i], self.axes.values(), strict=True)]
            table.add_row(*(Text(_show(v)) for v in values), *cells)
        return table


def _joined(stats: list[Statistic], grid: tuple[int, ...], sites: int) -> Statistic:
    """Statistics of the points as one, filled up to the same number of sites."""

    def fill(values: list[np.ndarray], axis: int, lead: tuple[int, ...]) -> np.ndarray:
        empty = 0 if values[0].dtype.kind in "iu" else np.nan
        out = []
        for v in values:
            missing = [(0, 0)] * v.ndim
            missing[axis] = (0, sites - v.shape[axis])
            out.append(np.pad(v, missing, constant_values=empty))
        stacked = np.stack(out, axis=axis)
        return stacked.reshape(lead + grid + stacked.shape[axis + 1 :])

    figures = {f: fill([getattr(s, f) for s in stats], 0, ()) for f in _FIGURES}
    samples = None
    if stats[0].samples is not None:
        kept = [np.asarray(s.samples) for s in stats]
        samples = fill(kept, 1, kept[0].shape[:1])
    return Statistic(**figures, count=stats[0].count, samples=samples)


def _position(name: str, held: tuple[Any, ...], value: Any) -> int:
    """Where an axis has a value: numbers up to rounding."""
    for i, own in enumerate(held):
        if own == value:
            return i
        numbers = isinstance(own, (int, float)) and isinstance(value, (int, float, np.number))
        if numbers and abs(own - value) <= 1e-9 * abs(own):
            return i
    near = checks.nearest(str(value), [_show(v) for v in held])
    raise KeyError(f"the axis {name!r} has no value {value!r}. {near}")


def _show(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
