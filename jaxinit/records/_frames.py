"""Records as the frames of other libraries, which are needed only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxinit.records._statistic import Statistic


def optional(library: str, method: str) -> Any:
    """The library, which is an extra of the same name; an ImportError that says so where it is missing."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(f"{method}() needs {library}: pip install 'jaxinit[{library}]'.") from error


def dataset(
    statistics: Iterable[tuple[str, Sequence[str], str, Statistic]],
    coordinates: Mapping[str, Any],
    label: str,
) -> Any:
    """An xarray Dataset of statistics, given as (name, dims, text, statistic), each with its `_stderr`.

    Of the coordinates those stay whose dimension is in use.
    """
    xarray = optional("xarray", "to_xarray")
    variables: dict[str, Any] = {}
    for name, dims, text, stat in statistics:
        variables[name] = (dims, stat.mean, {"long_name": text, "seeds": stat.count})
        variables[f"{name}_stderr"] = (dims, stat.stderr)
    used = {axis for dims, *_ in variables.values() for axis in dims}
    return xarray.Dataset(variables, {k: v for k, v in coordinates.items() if k in used}, {"label": label})
