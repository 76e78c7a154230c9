"""Names of the rows of a record: one for each place, or one for each iteration of the loops around it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxinit.probe._plan import Block, Loop, Path, Place, Plan, common

__all__ = ["Row", "parameter_rows", "site_names", "site_rows"]


class Row(NamedTuple):
    """A row: its place (or parameter) and the iteration of each loop around it."""

    owner: int
    iterations: tuple[int, ...]


def site_names(plan: Plan, places: Sequence[int]) -> dict[int, tuple[Path, str]]:
    """For each place the components of its name, and what follows them: "#1" for the second call, ":in", ".0"."""
    of_operations = _operation_paths(plan)
    out, calls = {}, dict[tuple[Path, str, int], int]()
    # Values of modules first: their names stay theirs, whatever else is done with their parameters before.
    for index in sorted(places, key=lambda p: plan.places[p].role == "operation"):
        place = plan.places[index]
        if place.role == "operation":
            path, suffix = of_operations[index], ""
        else:
            suffix = f".{place.leaf}" if place.leaf else ""
            if place.path:
                path, suffix = place.path, suffix + (":in" if place.role == "input" else "")
            else:
                path = (place.role,)
        what = path, suffix, len(place.loops)  # a loop puts its iterations into the name
        call = calls[what] = calls.get(what, -1) + 1
        out[index] = path, (f"#{call}" if call else "") + suffix
    return out


def _operation_paths(plan: Plan) -> dict[int, Path]:
    """An operation is named by where its kernel lives: "encoder/fc" for encoder/fc/kernel, or by the kernel's own
    path where another operation's lives there too (attention/query, attention/key)."""
    kernels = {
        n: common([plan.parameters[p] for p in place.operation.kernel])
        for n, place in enumerate(plan.places)
        if place.operation is not None
    }
    homes: dict[Path, set[Path]] = {}
    for n, path in kernels.items():
        if len(plan.places[n].operation.kernel) == 1:  # type: ignore[union-attr]
            homes.setdefault(path[:-1], set()).add(path)
    out = {}
    for n, path in kernels.items():
        single = len(plan.places[n].operation.kernel) == 1  # type: ignore[union-attr]
        home = path[:-1] if single else path
        crowded = single and len(homes[home]) > 1
        out[n] = (path if crowded else home) or path or plan.places[n].path or (plan.places[n].kind,)
    return out


def site_rows(block: Block, places: Sequence[Place], watched: set[int]) -> list[Row]:
    """The rows of a program in the order in which it computes them: a loop's iterations one after the other."""
    return list(_rows(block, places, watched, ()))


def _rows(block: Block, places: Sequence[Place], watched: set[int], around: tuple[int, ...]) -> Iterator[Row]:
    for index in sorted({*block.taps, *block.inside}):
        for inner in block.inside.get(index, []):
            inside = [p for p in inner.places() if p in watched]
            if not inside:
                continue
            loops = places[inside[0]].loops
            if len(loops) > len(around) and _is_loop(block, index):
                loop = loops[len(around)]
                steps = range(loop.length)
                for i in reversed(steps) if loop.reverse else steps:
                    yield from _rows(inner, places, watched, (*around, i))
            else:
                yield from _rows(inner, places, watched, around)
        for _, place in block.taps.get(index, []):
            if place in watched:
                yield Row(place, around)


def _is_loop(block: Block, index: int) -> bool:
    return block.jaxpr.eqns[index].primitive.name == "scan"


def indexed(path: Path, loops: Sequence[Loop], iterations: Sequence[int]) -> str:
    """The path with each loop's iteration behind what the loop repeats: layers[3]/fc. A loop that repeats nothing
    in particular puts it at the end."""
    parts = list(path)
    for loop, i in zip(loops, iterations, strict=True):
        at = len(loop.path) if loop.path and path[: len(loop.path)] == loop.path else len(path)
        parts[at - 1] += f"[{i}]"
    return "/".join(parts)


def parameter_rows(plan: Plan) -> list[Row]:
    """A row for each parameter, or for each layer of one that scans go through."""
    out = []
    for n in range(len(plan.parameters)):
        lengths = [range(loop.length) for loop in plan.stacked.get(n, ())]
        out += [Row(n, where) for where in itertools.product(*lengths)]
    return out
