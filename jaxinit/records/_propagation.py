"""Propagation: what happens to a signal and its gradient, site by site."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit._core import checks
from jaxinit.records._codec import saved
from jaxinit.records._frames import dataset
from jaxinit.records._record import Record
from jaxinit.records._sites import ParameterStatistics, Site
from jaxinit.records._statistic import Statistic

if TYPE_CHECKING:
    from rich.table import Table

#: Per statistic: what it is, and the axes of its `.mean`.
STATISTICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "second_moment": ("mean over units of z^2", ("site", "input")),
    "log_second_moment": ("mean over seeds of log(mean over units of z^2)", ("site", "input")),
    "mean": ("mean over units of z", ("site", "input")),
    "kurtosis": ("excess kurtosis of z over units", ("site", "input")),
    "correlation": ("cosine between the pre-activations of two inputs", ("site", "pair")),
    "one_minus_correlation": ("1 - correlation, without cancellation", ("site", "pair")),
    "dead_fraction": ("share of units whose derivative is 0 on every input", ("site",)),
    "saturated_fraction": ("share of units with |derivative| < 1e-2 of its maximum", ("site",)),
    "zero_fraction": ("share of activations that are exactly 0", ("site",)),
    "grad_second_moment": ("mean over units of (dL/dz)^2", ("site", "input")),
    "log_grad_second_moment": ("mean over seeds of log(mean over units of (dL/dz)^2)", ("site", "input")),
    "grad_correlation": ("cosine between the gradients of two inputs", ("site", "pair")),
    "weight_grad_norm": ("Frobenius norm of dL/dW", ("site",)),
    "update_ratio": ("Frobenius norm of dL/dW over that of W", ("site",)),
}

#: Statistics that only a probed model has, in the same form.
PROBE_STATISTICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "position_correlation": ("mean cosine between the positions of one example", ("site",)),
    "nonfinite_fraction": ("share of examples with a value that is nan or infinite", ("site",)),
    "grad_zero_fraction": ("share of units whose gradient is 0 on every input", ("site",)),
    "grad_nonfinite_fraction": ("share of examples with a gradient that is nan or infinite", ("site",)),
}

_ALL = {**STATISTICS, **PROBE_STATISTICS}


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Propagation(Record):
    """Layer-wise statistics of a signal and its gradient, from simulation, theory or a probed model.

    `sites` names the places in order (`"1"` .. `"L"` for canonical networks, module paths for real models);
    `pairs` lists the pairs of inputs (a, b), a < b, that correlations speak of. Each statistic of
    `STATISTICS` is an attribute: a `Statistic`, or None when it was not recorded. Statistics are of the
    pre-activation z of each input, taken over units; gradients are those of L = <r, f(x)>, r iid
    N(0, 1/n_out) per seed, unless the producer says otherwise in `config`.

    Raises TypeError or ValueError for a statistic that is no `Statistic`, or not of the shape that `STATISTICS` says.

    `source` is "simulation", "theory" or "probe"; `config` says what was run, `provenance` on what.

    Records of a probed model (source "probe") differ in this:

    - `layout` has one `Site` per site: what it is, its shape, its parameters. A site is a place in the
      program, so z is what is found there: a pre-activation where `layout[i].activation` says so, the output
      of a norm or of a block elsewhere. A place that equals another (a container that returns what its last
      module returned) is listed once, under the innermost name.
    - Batches of at most 4 examples keep their examples apart (`inputs` = examples, `pooled` = 1). Of larger
      ones `pooled` is the number of examples and `inputs` is 1: second moments, means and kurtosis are over
      all examples and units together, and the one pair, (0, 1), stands for all pairs: the mean cosine
      between two different examples, found without the matrix of all pairs.
    - Units are entries of the last axis; where there are positions (time, height, width) moments are taken
      over positions as well, and a unit is dead when it is so at every position of every example.
    - A figure that does not exist is nan and not counted in the statistic's `defined`: gradients at a site
      that no gradient reaches (stop_gradient, an unused output), anything in a branch that was not taken, the
      cosine of a zero vector, `dead_fraction` where no activation follows. `defined == 0` says so for every
      seed. A gradient that is exactly 0 is 0, with log -inf.
    - `nonfinite_fraction` and the others of `PROBE_STATISTICS` are recorded as well; moments of sites with
      values that are not finite are not finite.
    - `weight_grad_norm` and `update_ratio` at a site speak of its kernel, `layout[i].parameters[0]`;
      `parameters` has every parameter, and there `update_ratio` is that of an optimizer.
    - `opaque` lists the places that were executed but could not be looked into ("while in encoder").
    """

    source: str
    sites: tuple[str, ...]
    inputs: int
    pairs: tuple[tuple[int, int], ...] = ()
    second_moment: Statistic | None = None
    log_second_moment: Statistic | None = None
    mean: Statistic | None = None
    kurtosis: Statistic | None = None
    correlation: Statistic | None = None
    one_minus_correlation: Statistic | None = None
    dead_fraction: Statistic | None = None
    saturated_fraction: Statistic | None = None
    zero_fraction: Statistic | None = None
    grad_second_moment: Statistic | None = None
    log_grad_second_moment: Statistic | None = None
    grad_correlation: Statistic | None = None
    weight_grad_norm: Statistic | None = None
    update_ratio: Statistic | None = None
    position_correlation: Statistic | None = None
    nonfinite_fraction: Statistic | None = None
    grad_zero_fraction: Statistic | None = None
    grad_nonfinite_fraction: Statistic | None = None
    layout: tuple[Site, ...] = ()
    parameters: ParameterStatistics | None = None
    pooled: int = 1
    opaque: tuple[str, ...] = ()
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        where, sites = "Propagation", self.sites
        if (
            not isinstance(sites, Sequence)
            or isinstance(sites, str)
            or not all(isinstance(s, str) for s in sites)
        ):
            raise checks.wrong_type(where, "sites", "a tuple of names", sites)
        checks.integer(where, "inputs", self.inputs, at_least=1)
        if not isinstance(self.config, dict):
            raise checks.wrong_type(where, "config", "a dict of what was run", self.config)
        for name, value in self.statistics():
            axes = _ALL[name][1]
            if not isinstance(value, Statistic):
                raise checks.wrong_type(
                    where, name, "a Statistic or None", value,
                    "Make one with Statistic.of(samples), or Statistic.exact(values) of a theory.",
                )  # fmt: skip
            if sites and (len(value.shape) != len(axes) or value.shape[0] != len(sites)):
                rule = f"of shape ({', '.join(f'{axis}s' for axis in axes)}), with {len(sites)} sites"
                raise checks.bad(where, name, rule, value.shape)

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        """The recorded statistics, by name."""
        for name in _ALL:
            value = getattr(self, name)
            if value is not None:
                yield name, value

    def __getitem__(self, name: str) -> Statistic:
        """A recorded statistic by name; KeyError names those there are."""
        value = getattr(self, name) if name in _ALL else None
        if value is None:
            recorded = [n for n, _ in self.statistics()]
            raise KeyError(f"no statistic {name!r} was recorded. {checks.nearest(name, recorded)}")
        return value

    @property
    def count(self) -> int:
        """Number of seeds (0 for theory)."""
        return max((s.count for _, s in self.statistics()), default=0)

    @property
    def label(self) -> str:
        """What the record is of, for legends and tables."""
        return str(self.config.get("label", self.source))

    def __repr__(self) -> str:
        names = ", ".join(n for n, _ in self.statistics())
        return (
            f"Propagation({self.label!r}, {self.source}, {len(self.sites)} sites, {self.inputs} inputs, "
            f"{self.count} seeds: {names})"
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dict a site, statistic and input (or pair): site, statistic, index, mean, stderr, min, max, count."""
        out = []
        for name, stat in self.statistics():
            axes = _ALL[name][1]
            for index in np.ndindex(stat.shape):
                what = (
                    ""
                    if len(axes) == 1
                    else (str(self.pairs[index[1]]) if axes[1] == "pair" else str(index[1]))
                )
                out.append(
                    {
                        "label": self.label, "source": self.source, "site": self.sites[index[0]],
                        "statistic": name, axes[-1] if len(axes) > 1 else "input": what,
                        "mean": float(stat.mean[index]), "stderr": float(stat.stderr[index]),
                        "min": float(stat.min[index]), "max": float(stat.max[index]), "count": stat.count,
                    }
                )  # fmt: skip
        return out

    def to_xarray(self) -> Any:
        """The statistics as an xarray Dataset, each with its `_stderr`; dims site, input, pair (extra `xarray`)."""
        found = ((name, _ALL[name][1], _ALL[name][0], stat) for name, stat in self.statistics())
        coordinates = {
            "site": list(self.sites),
            "input": np.arange(self.inputs),
            "pair": [f"{a},{b}" for a, b in self.pairs],
        }
        return dataset(found, coordinates, self.label)

    def table(self, max_rows: int = 24) -> Table:
        """One row a site: typical second moment, correlation, gradient, dead units.

        Second moments are shown as exp of the mean log over seeds ("typical"), which does not underflow at
        great depth, averaged over inputs. At most `max_rows` sites are shown, evenly spaced. Records of a
        probed model show the shape of each site, roots of second moments (rms), and a mark where
        `jaxinit.diagnose` finds something: ✗ an error, ! a warning, ? what is likely.
        """
        from jaxinit.records._tables import propagation_table

        marks = importlib.import_module("jaxinit.diagnose").marks(self) if self.layout else ()
        return propagation_table(self, max_rows, marks)
