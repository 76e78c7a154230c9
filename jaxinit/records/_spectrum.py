"""Spectrum: how the squared singular values of a deep network's Jacobian are distributed."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit.records._codec import saved
from jaxinit.records._record import Record

if TYPE_CHECKING:
    from rich.table import Table


@saved
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Record):
    """The law of lambda = s^2, s a singular value of the input-output Jacobian: a density and atoms.

    Everything is kept against log lambda, since depth spreads spectra over thousands of decades.

    Attributes:
        log_points: natural log of lambda, ascending.
        log_density: density of log lambda there, lambda rho(lambda).
        weights: quadrature weights, `sum(weights * log_density * f(log_points))` = integral of f over the
            continuous part; None at points of the caller's choice.
        atom_log_locations, atom_masses: atoms; the location -inf is lambda = 0.
        log_mean: log E[lambda].
        relative_variance: Var(lambda) / E[lambda]^2.
        normalized_moments: E[(lambda / E[lambda])^k], k = 1, 2, ...
        log_edge: log of the upper end of the spectrum; inf if phi' is unbounded.
    """

    log_points: np.ndarray
    log_density: np.ndarray
    weights: np.ndarray | None
    atom_log_locations: np.ndarray
    atom_masses: np.ndarray
    log_mean: float
    relative_variance: float
    normalized_moments: np.ndarray
    log_edge: float
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def points(self) -> np.ndarray:
        """lambda; 0 or inf beyond the range of float64."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(self.log_points)

    @property
    def density(self) -> np.ndarray:
        """rho(lambda), of the continuous part."""
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            return self.log_density * np.exp(-self.log_points)

    @property
    def singular_values(self) -> np.ndarray:
        """s = sqrt(lambda)."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(0.5 * self.log_points)

    @property
    def singular_value_density(self) -> np.ndarray:
        """The density of s, 2 s rho(s^2)."""
        return 2.0 * self.singular_values * self.density

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """(lambda, mass) of each atom."""
        places = np.exp(np.minimum(self.atom_log_locations, 709.0))
        return tuple((float(p), float(m)) for p, m in zip(places, self.atom_masses, strict=True))

    @property
    def mean(self) -> float:
        """E[lambda]."""
        return math.exp(self.log_mean) if self.log_mean < 709.0 else math.inf

    @property
    def variance(self) -> float:
        """Var(lambda)."""
        return self.relative_variance * self.mean * self.mean

    @property
    def label(self) -> str:
        """What the record is of, for legends and tables."""
        return str(self.config.get("label", "spectrum"))

    def cumulative(self, log_points: Any) -> np.ndarray:
        """P(log lambda <= log_points), from the density on the record's own grid."""
        x = np.asarray(log_points, np.float64)
        below = np.zeros(x.shape)
        if self.log_points.size > 1:
            steps = 0.5 * np.diff(self.log_points) * (self.log_density[1:] + self.log_density[:-1])
            table = np.append(0.0, np.cumsum(steps))
            if self.weights is not None:  # the grid covers the whole spectrum: what is left of it is exact
                table *= (1.0 - self.atom_masses.sum()) / table[-1]
            below += np.interp(x, self.log_points, table)
        for place, mass in zip(self.atom_log_locations, self.atom_masses, strict=True):
            below += mass * (x >= place)
        return below

    def expectation(self, power: float) -> float:
        """E[(lambda / E[lambda])^power] by quadrature over the density and the atoms.

        Raises ValueError for a record at points of the caller's choice, which has no quadrature weights.
        """
        if self.weights is None:
            raise ValueError(
                "this Spectrum holds the density at chosen points and cannot be integrated: leave points= out."
            )
        inside = self.weights * self.log_density * np.exp(power * (self.log_points - self.log_mean))
        total = float(inside.sum())
        for place, mass in zip(self.atom_log_locations, self.atom_masses, strict=True):
            if place > -math.inf:
                total += float(mass) * math.exp(power * (place - self.log_mean))
            elif power <= 0.0:
                total += float(mass) if power == 0.0 else math.inf
        return total

    def __repr__(self) -> str:
        atoms = "".join(f", {100 * m:.3g} % at {p:.4g}" for p, m in self.atoms)
        return (
            f"Spectrum({self.label!r}: mean {self.mean:.4g}, relative variance {self.relative_variance:.4g}, "
            f"largest {math.exp(min(self.log_edge, 709.0)):.4g}{atoms})"
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dict a point: label, log_point, point, density, log_density."""
        columns = zip(self.log_points, self.points, self.density, self.log_density, strict=True)
        return [
            {
                "label": self.label, "log_point": float(l), "point": float(p),
                "density": float(d), "log_density": float(k),
            }
            for l, p, d, k in columns
        ]  # fmt: skip

    def table(self) -> Table:
        """The summary: mean, spread, edge, atoms, and the quantiles of the singular values."""
        from rich.table import Table
        from rich.text import Text

        from jaxinit.records._tables import format_log

        out = Table(title=Text(f"{self.label}: squared singular values"), title_justify="left")
        out.add_column("figure")
        out.add_column("value", justify="right")
        out.add_row("mean", format_log(self.log_mean))
        out.add_row("variance / mean²", f"{self.relative_variance:.4g}")
        out.add_row("largest", format_log(self.log_edge))
        for place, mass in zip(self.atom_log_locations, self.atom_masses, strict=True):
            out.add_row(f"share at {format_log(float(place))}", f"{mass:.4g}")
        if self.weights is not None and self.log_points.size:
            table = self.cumulative(self.log_points)
            for share in (0.05, 0.5, 0.95):
                place = self.log_points[min(int(np.searchsorted(table, share)), self.log_points.size - 1)]
                if np.any((self.atom_log_locations == -np.inf) & (self.atom_masses >= share)):
                    place = -np.inf
                out.add_row(f"{100 * share:g} % below", format_log(float(place)))
        return out
