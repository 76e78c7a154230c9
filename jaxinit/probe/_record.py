"""From figures by place to a `Propagation`: rows in order, names, what is at each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxinit.probe._names import Row, indexed, parameter_rows, site_names, site_rows
from jaxinit.probe._plan import Plan
from jaxinit.probe._program import Measure
from jaxinit.records import ParameterStatistics, Propagation, Site, Statistic, provenance

__all__ = ["propagation"]

_OF_PARAMETERS = "parameter "


def propagation(
    measure: Measure, statistics: Mapping[str, Statistic], config: dict[str, Any], label: str
) -> Propagation:
    """The record; `statistics` as `Measure` names them, one row a place and iteration in the program's storage."""
    plan, layout = measure.plan, measure.layout
    watched = measure.watched.watched
    rows = site_rows(plan.block, plan.places, set(watched))
    names = site_names(plan, watched)
    order = _storage(rows, plan, watched)
    at_sites: dict[str, Any] = {
        name: _pick(stat, order) for name, stat in statistics.items() if not name.startswith(_OF_PARAMETERS)
    }
    parameters = _parameters(plan, statistics, label)
    at = {row: n for n, row in enumerate(parameter_rows(plan))}
    kernels = [_kernel(plan, row, at) for row in rows]
    for name, of in (("weight_grad_norm", "gradient_norm"), ("update_ratio", "gradient_ratio")):
        stat = statistics.get(_OF_PARAMETERS + of)
        if name in layout.wanted and stat is not None:
            at_sites[name] = _pick(stat, kernels)
    sites = tuple(_site(plan, row, *names[row.owner]) for row in rows)
    return Propagation(
        "probe",
        tuple(site.name for site in sites),
        layout.inputs,
        layout.pairs,
        layout=sites,
        parameters=parameters,
        pooled=1 if layout.apart else layout.examples,
        opaque=tuple(plan.opaque),
        config=config,
        provenance=provenance(),
        **at_sites,
    )


def _storage(rows: Sequence[Row], plan: Plan, watched: Sequence[int]) -> list[int | None]:
    """Where each row lies: places one after the other, each with all its iterations, the last loop fastest."""
    start, begin = 0, {}
    for p in watched:
        begin[p] = start
        start += int(np.prod([loop.length for loop in plan.places[p].loops], dtype=int))
    out: list[int | None] = []
    for place, iterations in rows:
        lengths = [loop.length for loop in plan.places[place].loops]
        out.append(begin[place] + (int(np.ravel_multi_index(iterations, lengths)) if lengths else 0))
    return out


def _pick(stat: Statistic, rows: Sequence[int | None]) -> Statistic:
    """These rows of a statistic; undefined where there is none."""
    index = np.asarray([0 if r is None else r for r in rows], dtype=int)
    absent = np.asarray([r is None for r in rows])

    def take(value: np.ndarray, other: Any, axis: int = 0) -> np.ndarray:
        out = np.take(value, index, axis=axis)
        out[(slice(None),) * axis + (absent,)] = other
        return out

    return Statistic(
        take(stat.mean, np.nan), take(stat.stderr, np.nan), stat.count, take(stat.min, np.nan), take(stat.max, np.nan),
        take(stat.defined, 0), None if stat.samples is None else take(stat.samples, np.nan, 1),
    )  # fmt: skip


def _parameters(plan: Plan, statistics: Mapping[str, Statistic], label: str) -> ParameterStatistics:
    rows = parameter_rows(plan)
    found: dict[str, Any] = {
        name.removeprefix(_OF_PARAMETERS): stat
        for name, stat in statistics.items()
        if name.startswith(_OF_PARAMETERS)
    }
    return ParameterStatistics(
        tuple(_parameter_name(plan, row) for row in rows),
        tuple(plan.shapes[row.owner][len(row.iterations) :] for row in rows),
        label=label,
        **found,
    )


def _parameter_name(plan: Plan, row: Row) -> str:
    return indexed(plan.parameters[row.owner], plan.stacked.get(row.owner, ()), row.iterations)


def _row_at(plan: Plan, parameter: int, row: Row) -> Row:
    """The layer of a parameter that is in use at an iteration."""
    loops = list(zip(plan.places[row.owner].loops, row.iterations, strict=True))
    iterations = []
    for own in plan.stacked.get(parameter, ()):
        at = next((n for n, (loop, _) in enumerate(loops) if loop == own), None)
        iterations.append(0 if at is None else loops[at][1])
        loops = loops if at is None else loops[at + 1 :]
    return Row(parameter, tuple(iterations))


def _kernel(plan: Plan, row: Row, at: Mapping[Row, int]) -> int | None:
    """The row of the parameter that is multiplied here."""
    operation = plan.places[row.owner].operation
    if operation is None:
        return None
    return at[_row_at(plan, operation.kernel[0], row)]


def _site(plan: Plan, row: Row, path: tuple[str, ...], rest: str) -> Site:
    place = plan.places[row.owner]
    own: list[int] = []
    if place.operation is not None:
        own = [*place.operation.kernel, *place.operation.bias]
    if place.role != "operation" and place.path and not place.container:
        own += [n for n, p in enumerate(plan.parameters) if p[: len(place.path)] == place.path]
    return Site(
        indexed(path, place.loops, row.iterations) + rest,
        place.role,
        place.kind,
        "/".join(place.path),
        tuple(place.shape),
        str(np.dtype(place.dtype)),
        place.batch_axis,
        tuple(_parameter_name(plan, _row_at(plan, n, row)) for n in dict.fromkeys(own)),
        place.chain is not None or place.gated,
        tuple(loop.length for loop in place.loops),
        place.container,
        place.branch,
    )
