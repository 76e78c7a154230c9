"""Which places become sites, and which statistics are taken."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

from jaxinit._core import checks
from jaxinit.probe._layout import BACKWARD, FORWARD, PAIRWISE
from jaxinit.probe._names import site_names
from jaxinit.probe._plan import Plan
from jaxinit.records import PROBE_STATISTICS, STATISTICS

__all__ = ["SETS", "choose_sites", "choose_statistics"]

#: Named choices of sites.
SETS = ("modules", "ops", "all")
#: Statistics of parameters that a record shows at the sites they belong to.
_OF_KERNELS = frozenset({"weight_grad_norm", "update_ratio"})

Sites = str | Sequence[str] | Callable[[str], bool]


def choose_statistics(
    where: str, record: Sequence[str] | None, backward: bool, examples: int
) -> frozenset[str]:
    """The names to record: all by default, or those given, checked."""
    known = {**STATISTICS, **PROBE_STATISTICS}
    allowed = set(known) - (set() if backward else BACKWARD | _OF_KERNELS)
    allowed -= PAIRWISE if examples < 2 else set()
    if record is None:
        return frozenset(allowed)
    if isinstance(record, str) or not all(isinstance(name, str) for name in record):
        raise checks.wrong_type(where, "record", "a sequence of names of statistics", record)
    for name in record:
        if name not in known:
            raise checks.bad(where, "record", "names of statistics", name, checks.nearest(name, known))
        if name in PAIRWISE and examples < 2:
            raise checks.bad(where, "record", "statistics of one input when x has one example", name)
        if name not in allowed:
            raise checks.bad(where, "record", "names of forward statistics when backward=False", name)
    if not set(record) & (FORWARD | BACKWARD):
        raise checks.bad(where, "record", "at least one statistic of the signal or its gradient", record)
    return frozenset(record)


def choose_sites(where: str, sites: Any, plan: Plan, marks: bool) -> list[int]:
    """The places that are sites, in the order of the program."""
    if isinstance(sites, str) and sites in SETS:
        chosen = [p for p in plan.block.places() if _in_set(plan, p, sites)]
        if not chosen:
            raise checks.bad(
                where, "sites", "a set that the model has places for", sites,
                "A model of plain functions has no modules, only ops: products of a parameter with the signal."
                if not marks else "Use sites='modules', the outputs of its modules.",
            )  # fmt: skip
        return chosen
    every = [p for p in plan.block.places() if _in_set(plan, p, "all")]
    names = {p: "/".join(path) + rest for p, (path, rest) in site_names(plan, every).items()}
    if callable(sites):
        chosen = [p for p in every if sites(names[p])]
    else:
        patterns = [sites] if isinstance(sites, str) else sites
        if not isinstance(patterns, (list, tuple)) or not all(isinstance(s, str) for s in patterns):
            rule = "'modules', 'ops', 'all', a glob pattern or several, or a function of a name"
            raise checks.wrong_type(where, "sites", rule, sites)
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names.values()):
                hint = checks.nearest(pattern, [*dict.fromkeys(names.values()), *SETS])
                raise checks.bad(
                    where, "sites", "a pattern that some place of the model matches", pattern, hint
                )
        chosen = [p for p in every if any(fnmatch.fnmatchcase(names[p], s) for s in patterns)]
    if not chosen:
        raise checks.bad(where, "sites", "a function that takes some place of the model", sites,
                         f"The places are {', '.join(list(names.values())[:8])}, ...")  # fmt: skip
    return chosen


def _in_set(plan: Plan, index: int, which: str) -> bool:
    place = plan.places[index]
    if place.role == "operation" and place.operation is None:  # it is a module's output, which stands for it
        return False
    if which == "ops":
        return place.operation is not None and (place.role == "operation" or _is_value(plan, index))
    if which == "modules":
        return place.role == "output" or (place.role == "operation" and not place.represented)
    return True


def _is_value(plan: Plan, index: int) -> bool:
    """Whether a module's output is the value of its operation (and not computed from it)."""
    operation = plan.places[index].operation
    return not any(p.role == "operation" and p.operation is operation for p in plan.places)
