"""The figure of any record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxinit._core import checks
from jaxinit.plot._calibration import calibration
from jaxinit.plot._depth import depth_profiles
from jaxinit.plot._findings import findings
from jaxinit.plot._finite_width import finite_width
from jaxinit.plot._parameters import parameters
from jaxinit.plot._phase import phase_diagram
from jaxinit.plot._spectrum import spectrum
from jaxinit.plot._sweep import sweep_map
from jaxinit.plot._training import training
from jaxinit.plot._width_transfer import width_transfer
from jaxinit.records import (
    Calibration,
    Convergence,
    Diagnosis,
    ParameterStatistics,
    PhaseDiagram,
    Propagation,
    Record,
    Spectrum,
    Suggestion,
    Sweep,
    WidthTable,
    WidthTransfer,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = ("log_second_moment", "log_grad_second_moment", "correlation", "dead_fraction")


def _propagation(records: Any, **options: Any) -> Figure:
    return depth_profiles(records, options.pop("statistics", _PANELS), **options)


def _sweep(record: Sweep, **options: Any) -> Figure:
    if all(len(values) == 1 for values in record.axes.values()):
        return _propagation(record.propagations(), **options)
    return sweep_map(record, **options)


#: Record class -> the figure of such a record.
_FIGURES: dict[type, Any] = {
    Propagation: _propagation,
    Convergence: training,
    PhaseDiagram: phase_diagram,
    Spectrum: spectrum,
    Sweep: _sweep,
    WidthTransfer: width_transfer,
    Calibration: calibration,
    Diagnosis: findings,
    ParameterStatistics: parameters,
    Suggestion: parameters,
    WidthTable: parameters,
}
#: The same by name, for records that live beside what makes them, in areas above this one.
_BY_NAME: dict[str, Any] = {"FiniteWidth": finite_width, "InitTable": parameters}


def _draw(record: Any) -> Any:
    """What draws such a record, None if nothing does."""
    found = (draw for kind, draw in _FIGURES.items() if isinstance(record, kind))
    return next(found, _BY_NAME.get(type(record).__name__) if isinstance(record, Record) else None)


def drawable(record: Any) -> bool:
    """Whether there is a figure of such a thing, as there is of every record of this library.

    Example:
        >>> from jaxinit.plot import drawable
        >>> drawable("he_normal")
        False
    """
    return _draw(record) is not None


def figure(record: Any, **options: Any) -> Figure:
    """The figure of a record (or of several Propagation records, overlaid); `record.plot()` calls this.

    Arguments:
        record: any record of jaxinit; or a sequence, or a mapping from labels to, Propagation records.
        options: those of the figure: `depth_profiles` for a Propagation, `training` for a Convergence, `phase_diagram`
            for a PhaseDiagram, `spectrum` for a Spectrum, `sweep_map` for a Sweep of several networks, `findings` for a
            Diagnosis, `finite_width` for a FiniteWidth, `width_transfer` for a WidthTransfer, `calibration` for a
            Calibration, `parameters` for what has a row a parameter (ParameterStatistics, InitTable, Suggestion,
            WidthTable).

    Raises:
        TypeError: there is no figure for such an object.

    Example:
        >>> import numpy as np
        >>> from jaxinit.records import Propagation, Statistic
        >>> q = Statistic.exact(0.5 ** np.arange(3)[:, None])
        >>> record = Propagation("theory", ("1", "2", "3"), inputs=1, second_moment=q)
        >>> from jaxinit.plot import figure
        >>> len(figure(record).axes)
        1
    """
    sample = record
    if isinstance(record, Mapping) and record:
        sample = next(iter(record.values()))
    if isinstance(sample, Sequence) and not isinstance(sample, str) and sample:
        sample = sample[0]
    draw = _draw(sample)
    if draw is not None:
        return draw(record, **options)
    known = " or ".join([*(kind.__name__ for kind in _FIGURES), *_BY_NAME])
    raise checks.wrong_type("figure", "record", f"a {known} record", record)
