"""The figure of any record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxinit._core import checks
from jaxinit.plot._depth import depth_profiles
from jaxinit.plot._phase import phase_diagram
from jaxinit.plot._spectrum import spectrum
from jaxinit.plot._sweep import sweep_map
from jaxinit.plot._training import training
from jaxinit.plot._width_transfer import width_transfer
from jaxinit.records import Convergence, PhaseDiagram, Propagation, Spectrum, Sweep, WidthTransfer

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
}


def drawable(record: Any) -> bool:
    """Whether there is a figure of such a record; a `Diagnosis`, for one, is told by its table alone.

    Example:
        >>> from jaxinit.plot import drawable
        >>> drawable("he_normal")
        False
    """
    return isinstance(record, tuple(_FIGURES))


def figure(record: Any, **options: Any) -> Figure:
    """The figure of a record (or of several Propagation records, overlaid); `record.plot()` calls this.

    Arguments:
        record: any record of jaxinit; or a sequence, or a mapping from labels to, Propagation records.
        options: those of the figure: `depth_profiles` for a Propagation, `training` for a Convergence, `phase_diagram`
            for a PhaseDiagram, `spectrum` for a Spectrum, `sweep_map` for a Sweep of several networks.

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
    for kind, draw in _FIGURES.items():
        if isinstance(sample, kind):
            return draw(record, **options)
    known = " or ".join(kind.__name__ for kind in _FIGURES)
    raise checks.wrong_type("figure", "record", f"a {known} record", record)
