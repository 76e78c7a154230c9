"""Calibration: what was changed in a model's initial parameters, site by site, and why."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxinit._core import checks
from jaxinit.records._codec import saved
from jaxinit.records._record import Record

if TYPE_CHECKING:
    from rich.table import Table

#: What can become of a site: status -> meaning, and whether the site needs nobody's attention.
STATUSES: dict[str, tuple[str, bool]] = {
    "converged": ("the statistic is at its target", True),
    "shared": ("its parameters were set at their first use", True),
    "zero-initialized branch kept": ("its parameters are 0 and stay so", True),
    "excluded": ("its parameters were not to be changed", True),
    "unused": ("the model did not run it", True),
    "dead": ("its signal is 0 whatever the scale", False),
    "constant": ("its statistic does not depend on the scale", False),
    "not converged": ("the search ended off the target", False),
    "unstable": ("the statistic is at its target by analysis, but small errors grow on the way to it", False),
    "out of reach": ("no scales within their bounds bring it to the target", False),
}

_STYLE = {True: "green", False: "bold red"}


@saved
@dataclasses.dataclass(frozen=True)
class CalibratedSite:
    """One product of parameters with the signal.

    Attributes:
        name: of the site, as in `Propagation.sites`; loops that use the same parameters again are one site.
        kind: the primitive ("dot_general", "conv_general_dilated", "gather", "mul" for a gain); "parameter" for one
            that nothing reads.
        parameters: paths of the parameters that are scaled here; none where they are scaled elsewhere.
        status: a key of `STATUSES`.
        why: a sentence; empty where the status says it all.
        scale_before, scale_after: root mean square of the entries of those parameters (nan where there are none).
        before, after: the statistic.
        target: what it should be; nan where nothing was asked.
        iterations: how often the scale was changed.
        shift: what was added to the bias.
    """

    name: str
    kind: str
    parameters: tuple[str, ...]
    status: str
    scale_before: float
    scale_after: float
    before: float
    after: float
    target: float
    iterations: int
    why: str = ""
    shift: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is left to do here."""
        return STATUSES[self.status][1]

    @property
    def factor(self) -> float:
        """What the parameters were multiplied with."""
        return self.scale_after / self.scale_before if self.parameters else 1.0

    def __str__(self) -> str:
        return f"{self.name}: {self.status}" + (f", {self.why}" if self.why else "")


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Calibration(Record):
    """What `jaxinit.calibrate` did, in the order in which the model runs.

    Attributes:
        label: of the model.
        method: "lsuv", "critical", "gradient", "analytic".
        statistic: what `before` and `after` of the sites are.
        sites: one for each product of parameters with the signal.
        evaluations: how often the model was evaluated.
        figures: numbers of the whole model, by name.

    `ok`, and the truth value of the record, is whether every site has come to rest: at its target, or for a reason
    that needs no attention (`STATUSES`).
    """

    label: str
    method: str
    statistic: str
    sites: tuple[CalibratedSite, ...]
    evaluations: int
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no site needs attention."""
        return all(site.ok for site in self.sites)

    def __bool__(self) -> bool:
        return self.ok

    def __iter__(self) -> Iterator[CalibratedSite]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __getitem__(self, name: str) -> CalibratedSite:
        """The site of this name; KeyError names the nearest."""
        return checks.named("site", name, {site.name: site for site in reversed(self.sites)})

    def with_status(self, status: str) -> tuple[CalibratedSite, ...]:
        """The sites of one status."""
        checks.choice("with_status", "status", status, tuple(STATUSES))
        return tuple(site for site in self.sites if site.status == status)

    @property
    def counts(self) -> dict[str, int]:
        """Status -> number of sites."""
        found = Counter(site.status for site in self.sites)
        return {status: found[status] for status in STATUSES if found[status]}

    def __repr__(self) -> str:
        found = ", ".join(f"{n} {status}" for status, n in self.counts.items())
        return f"Calibration({self.label!r}, {self.method!r}: {found or 'no sites'})"

    def __str__(self) -> str:
        left = [f"  {site}" for site in self.sites if not site.ok]
        return "\n".join([repr(self), *left])

    def rows(self) -> list[dict[str, Any]]:
        """One dict a site."""
        return [
            {
                "label": self.label, "site": s.name, "kind": s.kind, "parameters": ", ".join(s.parameters),
                "status": s.status, "why": s.why, "scale_before": s.scale_before, "scale_after": s.scale_after,
                "factor": s.factor, "before": s.before, "after": s.after, "target": s.target,
                "iterations": s.iterations, "shift": s.shift,
            }
            for s in self.sites
        ]  # fmt: skip

    def table(self, max_rows: int = 60) -> Table:
        """One row a site: scale and statistic before and after, and the status; evenly spaced rows if too many."""
        from rich.text import Text

        from jaxinit.records._fitted import FittedTable
        from jaxinit.records._tables import format_log, shown

        def figure(value: float) -> str:
            return "–" if math.isnan(value) else format_log(math.log(value) if value > 0 else -math.inf)

        table = FittedTable(
            title=Text(f"{self.label}: {self.method}"), title_justify="left",
            expendable=("rms weight", "target", "before", "factor", "after"),
        )  # fmt: skip
        targets = {f"{s.target:.3g}" for s in self.sites if not math.isnan(s.target)}
        alike = f", target {targets.pop()}" if len(targets) == 1 else ""
        table.caption = f"{self.statistic}{alike}; {self.evaluations} evaluations of the model"
        table.caption_justify = "left"
        table.add_column("site", no_wrap=True)
        for title in ("rms weight", "factor", "before", "after", *([] if alike else ["target"])):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("status", overflow="fold", min_width=14)
        for i in shown(len(self.sites), max_rows):
            s = self.sites[i]
            status = Text(s.status, style=_STYLE[s.ok])
            if s.why:
                status.append(f": {s.why}", style="default")
            table.add_row(
                Text(s.name), figure(s.scale_after), figure(s.factor), figure(s.before), figure(s.after),
                *([] if alike else [figure(s.target)]), status,
            )  # fmt: skip
        return table
