"""Diagnosis: what is wrong with a network at initialization, where, how surely, and what to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxinit._core import checks
from jaxinit.records._codec import saved
from jaxinit.records._record import Record

if TYPE_CHECKING:
    from rich.table import Table

#: Worst first. An error: training cannot work, or not at this depth. A warning: it will be slow or fragile. Likely: it
#: would be a warning, and its estimate is beyond the threshold, but the seeds do not make that sure. A note: worth
#: knowing, nothing to mend.
SEVERITIES = ("error", "warning", "likely", "note")

_STYLE = {"error": "bold red", "warning": "yellow", "likely": "cyan", "note": "dim"}


@saved
@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        kind: a word for it, such as "vanishing_signal"; `jaxinit.diagnose.KINDS` lists them.
        severity: one of `SEVERITIES`.
        what: a sentence with numbers.
        where: the sites it speaks of: one, or the first and the last of a range.
        figure: what `value` measures.
        value: the measured figure, with its 95 % confidence interval `low` .. `high`; equal for exact figures.
        threshold: the figure beyond which this severity begins.
        p_value: probability of a figure at least as far beyond the threshold if the truth were at the threshold;
            0 for exact figures.
        basis: what the uncertainty comes from: "16 seeds", "exact", ...
        evidence: further numbers, by name.
        remedy: code that mends it, empty for a note that needs none.
        source: where the threshold comes from.
    """

    kind: str
    severity: str
    what: str
    where: tuple[str, ...]
    figure: str
    value: float
    low: float
    high: float
    threshold: float
    p_value: float
    basis: str
    remedy: str
    source: str
    evidence: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def place(self) -> str:
        """`where` in words: `layer 7`, `layers 1 to 30`, `encoder/fc`."""
        names = list(dict.fromkeys(self.where))
        if all(n.isdigit() for n in names):
            return f"layer{'s' * (len(names) > 1)} " + " to ".join(names)
        return " to ".join(names)

    @property
    def certainty(self) -> str:
        """How sure, in words."""
        if self.basis == "exact":
            return "exact"
        return f"{'p < 1e-16' if self.p_value < 1e-16 else f'p = {self.p_value:.2g}'}, {self.basis}"

    def __str__(self) -> str:
        return f"{self.severity}: {self.what}" + (f" Change: {self.remedy}" if self.remedy else "")


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Record):
    """The findings on one `Propagation`, worst first.

    Attributes:
        label, source, sites, count: of the Propagation; `count` is the number of seeds, 0 for theory.
        findings: worst first.
        word: "alive", or what is wrong in a word: "vanishing", "exploding", "dead", "not finite", ...
        verdict: one sentence.
        checked: the checks that could be made.
        skipped: those that could not, each with what was not recorded.

    `ok`, and the truth value of the record, is whether there is neither an error nor a warning.
    """

    label: str
    source: str
    sites: tuple[str, ...]
    count: int
    findings: tuple[Finding, ...]
    word: str
    verdict: str
    checked: tuple[str, ...] = ()
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Neither an error nor a warning."""
        return not self.at_least("warning")

    def __bool__(self) -> bool:
        return self.ok

    @property
    def way_out(self) -> str:
        """What helps a probed model as a whole; empty where no initializer is at fault, and for what is no model's."""
        if self.source != "probe" or not any("_init=" in f.remedy for f in self.at_least("warning")):
            return ""
        return "All layers at once: ji.suggest(model, x) writes initializers, ji.calibrate(model, x, key) sets scales."

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def at_least(self, severity: str) -> tuple[Finding, ...]:
        """The findings of a severity, and of worse ones."""
        checks.choice("at_least", "severity", severity, SEVERITIES)
        return tuple(f for f in self.findings if SEVERITIES.index(f.severity) <= SEVERITIES.index(severity))

    def worst(self, n: int = 1) -> tuple[Finding, ...]:
        """The first `n` findings."""
        return self.findings[: checks.integer("worst", "n", n, at_least=0)]

    def __repr__(self) -> str:
        counts = [(sum(f.severity == s for f in self.findings), s) for s in SEVERITIES]
        found = ", ".join(f"{n} {s}{'s' * (n > 1)}" for n, s in counts if n) or "no findings"
        return f"Diagnosis({self.label!r}, {self.word!r}: {found})"

    def __str__(self) -> str:
        lines = [f"{self.label}: {self.verdict}", *(f"  {f}" for f in self.findings)]
        return "\n".join([*lines, f"  {self.way_out}"] if self.way_out else lines)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a finding, its fields but `evidence`; `where` in words."""
        return [
            {
                "label": self.label, "severity": f.severity, "kind": f.kind, "where": f.place, "what": f.what,
                "figure": f.figure, "value": f.value, "low": f.low, "high": f.high, "threshold": f.threshold,
                "p_value": f.p_value, "basis": f.basis, "remedy": f.remedy, "source": f.source,
            }
            for f in self.findings
        ]  # fmt: skip

    def table(self, max_rows: int = 24) -> Table:
        """One row a finding, worst first; the verdict above, the number of checks below."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(f"{self.label}: {self.verdict}"), title_justify="left", show_lines=True)
        skipped = "; ".join(f"{k} ({v})" for k, v in self.skipped.items())
        table.caption = f"{len(self.checked)} checks made" + (
            f", {len(self.skipped)} not: {skipped}" if skipped else ""
        )
        table.caption += f".\n{self.way_out}" if self.way_out else ""
        table.caption_justify = "left"
        if not self.findings:
            table.show_header, table.box = False, None  # the verdict stands alone, over no empty box
        for title in ("", "where", "what", "change"):
            table.add_column(title, overflow="fold")
        for f in self.findings[:max_rows]:
            how = "" if f.basis == "exact" else f" ({f.certainty})"
            table.add_row(
                Text(f.severity, style=_STYLE[f.severity]), Text(f.place), Text(f.what + how), Text(f.remedy)
            )
        left = len(self.findings) - max_rows
        if left > 0:
            table.add_row("", "", f"{left} more: worst({len(self.findings)})", "")
        return table
