"""Width: which parameter scales how (`WidthTable`), and whether a model does (`WidthTransfer`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit._core import checks
from jaxinit.records._codec import saved
from jaxinit.records._record import Record

if TYPE_CHECKING:
    from rich.table import Table

#: What a parameter is to the width: role -> which of its axes grow.
ROLES = {
    "input": "only what it writes grows",
    "hidden": "both what it reads and what it writes grow",
    "output": "only what it reads grows",
    "bias": "a vector that grows: a bias, or a norm's gain",
    "fixed": "nothing of it grows",
}
#: What can be said of a slope against width.
VERDICTS = {
    "flat": "the interval of the slope lies within the tolerance",
    "grows": "it lies above",
    "shrinks": "it lies below",
    "unclear": "it reaches over the edge: more widths or seeds would tell",
}


@saved
@dataclasses.dataclass(frozen=True)
class WidthRule:
    """One parameter.

    Attributes:
        parameter: its path.
        base_shape, shape: at the base width and at the width asked for.
        role: a key of `ROLES`.
        growth_in, growth_out: by how much what it reads and what it writes grew.
        init: what the standard deviation at the base width is multiplied with.
        own_init: what the model's own initializer multiplies it with; nan where it draws nothing of known law.
        adam, sgd: what the learning rate is multiplied with.
        output: what the product is multiplied with in the model's code.
    """

    parameter: str
    base_shape: tuple[int, ...]
    shape: tuple[int, ...]
    role: str
    growth_in: float
    growth_out: float
    init: float
    own_init: float
    adam: float
    sgd: float
    output: float


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class WidthTable(Record):
    """What `jaxinit.mup_table` found: the maximal-update parametrization of a model, parameter by parameter.

    Attributes:
        label: of the model.
        base_width, width: as given.
        rules: in the order of the parameters.
        notes: what the table cannot see.
    """

    label: str
    base_width: float
    width: float
    rules: tuple[WidthRule, ...]
    notes: tuple[str, ...] = ()
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __iter__(self) -> Iterator[WidthRule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __getitem__(self, parameter: str) -> WidthRule:
        """The rule of a parameter; KeyError names the nearest."""
        return checks.named("parameter", parameter, {rule.parameter: rule for rule in reversed(self.rules)})

    def __repr__(self) -> str:
        counts = {role: sum(r.role == role for r in self.rules) for role in ROLES}
        found = ", ".join(f"{n} {role}" for role, n in counts.items() if n)
        return f"WidthTable({self.label!r}, {self.base_width:g} -> {self.width:g}: {found})"

    def rows(self) -> list[dict[str, Any]]:
        """One dict a parameter."""
        return [{"label": self.label, **dataclasses.asdict(rule)} for rule in self.rules]

    def table(self, max_rows: int = 80) -> Table:
        """One row a parameter; evenly spaced rows if too many."""
        from rich.text import Text

        from jaxinit.records._fitted import FittedTable
        from jaxinit.records._tables import shown

        table = FittedTable(
            title=Text(f"{self.label}: width {self.base_width:g} to {self.width:g}"), title_justify="left",
            expendable=("shape", "own", "role", "SGD"),
        )  # fmt: skip
        table.caption = (
            "factors on what is right at the base width: standard deviation (own: of the model's initializer), "
            "learning rates, output" + "".join(f"; {note}" for note in self.notes)
        )
        table.caption_justify = "left"
        table.add_column("parameter", no_wrap=True)
        table.add_column("role", no_wrap=True)
        for title in ("shape", "init", "own", "Adam", "SGD", "output"):
            table.add_column(title, justify="right", no_wrap=True)
        for i in shown(len(self.rules), max_rows):
            r = self.rules[i]
            own = "–" if math.isnan(r.own_init) else f"{r.own_init:.3g}"
            wrong = not math.isnan(r.own_init) and not math.isclose(r.own_init, r.init, rel_tol=0.02)
            table.add_row(
                Text(r.parameter), r.role, "×".join(map(str, r.shape)) or "scalar", f"{r.init:.3g}",
                Text(own, style="bold" if wrong else ""), f"{r.adam:.3g}", f"{r.sgd:.3g}", f"{r.output:.3g}",
            )  # fmt: skip
        return table


@saved
@dataclasses.dataclass(frozen=True)
class WidthSlope:
    """Of one site after some steps: the slope of log rms against log width.

    Attributes:
        site, step: where and when.
        quantity: "value", or "change" since the initial parameters.
        slope, low, high: with its 95 % interval over seeds (and whatever is no power of the width).
        verdict: a key of `VERDICTS`.
        readout: whether the site reads the last hidden layer: its initial value may fall with the width.
    """

    site: str
    step: int
    quantity: str
    slope: float
    low: float
    high: float
    verdict: str
    readout: bool = False


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class WidthTransfer(Record):
    """What `jaxinit.coordinate_check` found: how the values of a model's layers, and their changes, depend on width.

    Attributes:
        label: of the model.
        widths, steps, sites: the axes of the figures.
        log_rms: natural logarithm of the root mean square, shape (quantities, widths, seeds, steps + 1, sites);
            quantities "value" and "change".
        slopes: for each quantity, step and site; the change from step 1 on.
        tolerance: a slope within it counts as none.
        loss: shape (widths, seeds, steps + 1).

    `ok`, and the truth value of the record, is whether no site grows, and none stops learning, with the width: every
    change after the last step is flat, every value neither grows, nor (readout apart) shrinks.
    """

    label: str
    widths: np.ndarray
    steps: int
    sites: tuple[str, ...]
    log_rms: np.ndarray
    loss: np.ndarray
    slopes: tuple[WidthSlope, ...]
    tolerance: float
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def at(self, site: str, quantity: str = "change", step: int | None = None) -> WidthSlope:
        """The slope of a site, after the last step by default."""
        checks.choice("at", "quantity", quantity, ("value", "change"))
        step = self.steps if step is None else step
        for s in self.slopes:
            if (s.site, s.quantity, s.step) == (site, quantity, step):
                return s
        raise KeyError(f"no {quantity} of {site!r} after step {step}. {checks.nearest(site, self.sites)}")

    @property
    def wrong(self) -> tuple[WidthSlope, ...]:
        """The slopes that speak against transfer: after the last step, and of the initial values."""
        found = []
        for s in self.slopes:
            if s.verdict in ("flat", "unclear") or s.step not in (0, self.steps):
                continue
            if s.quantity == "value" and s.verdict == "shrinks" and s.readout:
                continue
            found.append(s)
        return tuple(found)

    @property
    def ok(self) -> bool:
        """Nothing grows or shrinks that should not."""
        return not self.wrong

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        widths = ", ".join(f"{w:g}" for w in self.widths)
        found = (
            "no site depends on width"
            if self.ok
            else f"{len({s.site for s in self.wrong})} sites depend on width"
        )
        return f"WidthTransfer({self.label!r}, widths {widths}, {self.steps} steps: {found})"

    def rows(self) -> list[dict[str, Any]]:
        """One dict a slope."""
        return [{"label": self.label, **dataclasses.asdict(s)} for s in self.slopes]

    def table(self, max_rows: int = 60) -> Table:
        """One row a site: slopes of its initial value and of its last change, with the verdicts."""
        from rich.text import Text

        from jaxinit.records._fitted import FittedTable
        from jaxinit.records._tables import shown

        style = {"flat": "green", "grows": "bold red", "shrinks": "yellow", "unclear": "dim"}
        table = FittedTable(title=Text(repr(self)), title_justify="left")
        table.caption = (
            f"slope of log rms against log width, 95 % interval, {self.log_rms.shape[2]} seeds; flat: within "
            f"±{self.tolerance:g}"
        )
        table.caption_justify = "left"
        table.add_column("site", no_wrap=True)
        for title in ("initial value", f"change after {self.steps}"):
            table.add_column(title, justify="right", no_wrap=True)
            table.add_column("")

        def cells(s: WidthSlope) -> tuple[str, Text]:
            note = " (readout)" if s.readout and s.quantity == "value" and s.verdict == "shrinks" else ""
            return f"{s.slope:+.2f} [{s.low:+.2f}, {s.high:+.2f}]", Text(
                s.verdict + note, style=style[s.verdict]
            )

        for i in shown(len(self.sites), max_rows):
            site = self.sites[i]
            row = [
                c for q, step in (("value", 0), ("change", self.steps)) for c in cells(self.at(site, q, step))
            ]
            table.add_row(Text(site), *row)
        return table
