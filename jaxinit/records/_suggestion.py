"""Suggestion: the initializers to write into a model's source, layer by layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jaxinit._core import checks
from jaxinit.records._codec import saved
from jaxinit.records._record import Record

if TYPE_CHECKING:
    from rich.table import Table


@saved
@dataclasses.dataclass(frozen=True)
class SuggestedLayer:
    """One parameter that multiplies the signal.

    Attributes:
        parameter: its path; of stacked layers, the path of the stack.
        module: class of the module that holds it, or the primitive.
        argument: the module's argument for it: "kernel_init", "embedding_init"; or the parameter's own name.
        code: the initializer, as an expression of `import jaxinit as ji`.
        law: "truncated_normal", "normal", "uniform", "orthogonal", "zeros", ...: of the model's own initializer.
        stddev: of the entries that the code draws.
        now: of the entries that the model draws of itself.
        second_moment: what the analysis expects at the site: with the code, and of the model as it is.
        second_moment_now: see there.
        why: a few words: the end of a residual branch, kept, measured.
    """

    parameter: str
    module: str
    argument: str
    code: str
    law: str
    stddev: float
    now: float
    second_moment: float
    second_moment_now: float
    why: str = ""

    @property
    def changed(self) -> bool:
        """Whether the code draws something else than the model does, beyond 3 % of the standard deviation."""
        return not math.isclose(self.stddev, self.now, rel_tol=0.03)

    @property
    def line(self) -> str:
        """What to write: `nn.Dense(..., kernel_init=ji.he_normal())`."""
        if self.argument.endswith("_init"):
            return f"{self.module}(..., {self.argument}={self.code})"
        return f"{self.argument}: {self.code}"


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Suggestion(Record):
    """What `jaxinit.suggest` found: initializers with which the signal survives, to be written into the source.

    Attributes:
        label: of the model.
        layers: in the order in which the model runs.
        branches: how many residual branches end in one of them.
        notes: what was measured, as there is no rule for it.
    """

    label: str
    layers: tuple[SuggestedLayer, ...]
    branches: int = 0
    notes: tuple[str, ...] = ()
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __iter__(self) -> Iterator[SuggestedLayer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, parameter: str) -> SuggestedLayer:
        """The layer of this parameter; KeyError names the nearest."""
        return checks.named(
            "parameter", parameter, {layer.parameter: layer for layer in reversed(self.layers)}
        )

    @property
    def rules(self) -> dict[str, str]:
        """Path of each parameter -> code of independent normal entries of its standard deviation, whatever its shape
        (of a scale, its number): for `jaxinit.reinit`, once evaluated."""
        code = {
            layer.parameter: layer.code if layer.law == "constant" else f"ji.normal({layer.stddev:.4g})"
            for layer in self.layers
        }
        return {path: "ji.zeros()" if code[path] == "ji.normal(0)" else code[path] for path in code}

    def __repr__(self) -> str:
        changed = sum(layer.changed for layer in self.layers)
        return f"Suggestion({self.label!r}: {len(self.layers)} layers, {changed} to change)"

    def __str__(self) -> str:
        width = max((len(layer.parameter) for layer in self.layers), default=0)
        return "\n".join(f"{layer.parameter:<{width}}  {layer.line}" for layer in self.layers)

    def rows(self) -> list[dict[str, Any]]:
        """One dict a layer."""
        return [{"label": self.label, **dataclasses.asdict(s), "changed": s.changed} for s in self.layers]

    def table(self, max_rows: int = 80) -> Table:
        """One row a layer: what to write, what it draws, what the model draws now; evenly spaced rows if too many."""
        from rich.text import Text

        from jaxinit.records._fitted import FittedTable
        from jaxinit.records._tables import shown

        table = FittedTable(
            title=Text(f"{self.label}: initializers to write"), title_justify="left",
            expendable=("now", "stddev", "now", "⟨z²⟩", ""),
        )  # fmt: skip
        table.caption = "stddev of entries; ⟨z²⟩ as analysed, now and with the suggestion" + (
            f"; {self.branches} residual branches" if self.branches else ""
        )
        table.caption_justify = "left"
        table.add_column("parameter", no_wrap=True)
        table.add_column("write", overflow="fold", min_width=30)
        for title in ("stddev", "now", "⟨z²⟩", "now"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        for i in shown(len(self.layers), max_rows):
            s = self.layers[i]
            table.add_row(
                Text(s.parameter), Text(s.line, style="bold" if s.changed else ""), f"{s.stddev:.3g}", f"{s.now:.3g}",
                f"{s.second_moment:.3g}", f"{s.second_moment_now:.3g}", Text(s.why),
            )  # fmt: skip
        return table
