"""The spectrum of a Jacobian: a density over decades, and its atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit.plot import _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxinit.records import Spectrum

_LN10 = float(np.log(10.0))
#: The share of the highest density that can be told from 0 in the figure, and that of the mass that may lie beyond.
_VISIBLE, _BEYOND = 5e-3, 1e-2


def spectrum(record: Spectrum, *, theme: str = "light") -> Figure:
    """The density of log10 of the squared singular values, with each atom's mass in the legend.

    The axis is log10 lambda, where depth spreads a spectrum over decades; an atom at lambda = 0 has no place on
    it and is only named. The axis begins and ends where the density is visible, but not before it holds all of the
    continuous part save 1 % on each side: the tail of a deep network goes on for a hundred decades.

    Arguments:
        record: a Spectrum.
        theme: "light" or "dark".

    Example:
        >>> from jaxinit import plot, spectra
        >>> figure = plot.spectrum(spectra.density("tanh", 4, 1.0, ensemble="gaussian"))
        >>> figure.axes[0].get_xlabel()
        'log₁₀ λ,  λ = squared singular value'
    """
    _style.require("spectrum", record, "Spectrum")
    lines: Any = _style.matplotlib().lines
    figure, (ax,) = _style.new_figure(size=(6.2, 4.4), theme=theme)
    look = _style.look(0, theme)
    x, density = record.log_points / _LN10, record.log_density * _LN10
    ax.plot(x, density, color=look.colour, linewidth=1.8)
    ax.fill_between(x, density, color=look.colour, alpha=0.15, linewidth=0)
    ax.set_xlabel("log₁₀ λ,  λ = squared singular value")
    ax.set_ylabel("density per decade")
    if (density > 0.0).any():
        low, high = _reach(x, density)
        margin = max(0.2, 0.02 * (high - low))
        ax.set_xlim(low - margin, high + margin)
    ax.set_ylim(bottom=0.0)
    handles = [lines.Line2D([], [], color=look.colour, linewidth=1.8, label="infinite width")]
    for place, mass in zip(record.atom_log_locations, record.atom_masses, strict=True):
        mark = _style.look(1, theme)
        if np.isfinite(place):
            ax.axvline(float(place) / _LN10, color=mark.colour, linestyle="--", linewidth=1.2)
        where = f"λ = {np.exp(place):.3g}" if np.isfinite(place) else "λ = 0"
        handles.append(
            lines.Line2D(
                [], [], color=mark.colour, linestyle="--", label=f"atom of mass {mass:.3g} at {where}"
            )
        )
    _style.legend(figure, handles, theme=theme)
    return figure


def _reach(x: np.ndarray, density: np.ndarray) -> tuple[float, float]:
    """From where to where the density is visible, or else has what mass there is."""
    seen = x[density > _VISIBLE * density.max()]
    mass = np.append(0.0, np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(x)))
    low, high = np.interp(np.asarray([_BEYOND, 1.0 - _BEYOND]) * mass[-1], mass, x)
    return float(min(seen.min(), low)), float(max(seen.max(), high))
