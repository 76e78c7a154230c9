"""PhaseDiagram: what a very deep network does, over a grid of weight and bias variances."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit.records._codec import saved
from jaxinit.records._record import Record

if TYPE_CHECKING:
    from rich.table import Table


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PhaseDiagram(Record):
    """Fixed points of the mean-field maps over a grid; axis 0 is the weight variance, axis 1 the bias variance.

    Attributes:
        activation: its name.
        weight_variances, bias_variances: the axes, 1-D.
        q, chi_q: the fixed point of the length map (inf where it diverges) and the map's slope there.
        chi_1: growth of gradients a layer; below 1 ordered, above 1 chaotic.
        c, one_minus_c, chi_c: the fixed point of the correlation map (nan where undefined) and its slope.
        xi_q, xi_c: depth scales in layers.
        phase: "ordered", "critical" or "chaotic", an array of strings.
        q_error: estimated relative error of q.
        c_error: estimated absolute error of c and of one_minus_c (inf where even the phase is open).
        xi_c_error: estimated relative error of xi_c.
        status: as `jaxinit.meanfield.STATUS` explains.
        critical_weight_variance, critical_bias_variance: the edge of chaos within the grid, a curve by points.
    """

    activation: str
    weight_variances: np.ndarray
    bias_variances: np.ndarray
    q: np.ndarray
    chi_q: np.ndarray
    chi_1: np.ndarray
    c: np.ndarray
    one_minus_c: np.ndarray
    chi_c: np.ndarray
    xi_q: np.ndarray
    xi_c: np.ndarray
    phase: np.ndarray
    status: np.ndarray
    q_error: np.ndarray
    c_error: np.ndarray
    xi_c_error: np.ndarray
    critical_weight_variance: np.ndarray
    critical_bias_variance: np.ndarray
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(weight variances, bias variances)."""
        return self.q.shape[0], self.q.shape[1]

    @property
    def label(self) -> str:
        """What the record is of, for legends and tables."""
        return str(self.config.get("label", self.activation))

    def __repr__(self) -> str:
        share = {p: float(np.mean(self.phase == p)) for p in ("ordered", "critical", "chaotic")}
        held = ", ".join(f"{100 * s:.0f} % {p}" for p, s in share.items() if s)
        return f"PhaseDiagram({self.label!r}, {self.shape[0]} x {self.shape[1]}: {held})"

    def rows(self) -> list[dict[str, Any]]:
        """One dict a grid point."""
        numbers = ("q", "chi_q", "chi_1", "c", "one_minus_c", "chi_c", "xi_q", "xi_c")
        return [
            {
                "activation": self.activation,
                "weight_variance": float(self.weight_variances[i]),
                "bias_variance": float(self.bias_variances[j]),
                **{n: float(getattr(self, n)[i, j]) for n in numbers},
                "phase": str(self.phase[i, j]),
                "status": str(self.status[i, j]),
            }
            for i, j in np.ndindex(self.shape)
        ]

    def table(self, max_rows: int = 24) -> Table:
        """One row a grid point, at most `max_rows` of them, evenly spaced."""
        from rich.text import Text

        from jaxinit.records._fitted import FittedTable
        from jaxinit.records._tables import shown

        out = FittedTable(
            title=Text(f"{self.label}: phase diagram"),
            title_justify="left",
            expendable=("status", "c*", "q*"),
        )
        for title in ("σw²", "σb²", "q*", "χ₁", "c*", "ξ_c", "phase", "status"):
            out.add_column(title, justify="left" if title in ("phase", "status") else "right")
        rows = self.rows()
        for i in shown(len(rows), max_rows):
            row = rows[i]
            figures = ("weight_variance", "bias_variance", "q", "chi_1", "c", "xi_c")
            out.add_row(*(f"{row[f]:.4g}" for f in figures), row["phase"], row["status"])
        return out
