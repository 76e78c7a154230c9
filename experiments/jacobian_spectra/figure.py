"""The figure of the records that run.py saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _common import finish

import jaxinit as ji
from jaxinit.plot import new_figure
from jaxinit.plot._style import look


def depths(out: Path, kind: str) -> list[int]:
    return sorted(
        int(p.stem.split("_")[1])
        for p in out.glob(f"{kind}_*_{'summary' if kind == 'isometric' else 'theory'}.npz")
    )


def distance(theory: ji.records.Spectrum, run: ji.Propagation) -> float:
    """Kolmogorov's distance between the simulated log s^2 and the density, above the rounding of the simulation.

    Float64 resolves singular values down to 1e-15 of a network's largest; what is below counts as one class.
    """
    x = np.sort(2.0 * run.extra["jacobian_log_singular_values"].ravel())
    n, seen = len(x), x > theory.log_edge - 2.0 * 32.0
    below, rank = theory.cumulative(x), np.arange(n)
    return float(max(np.abs(below - rank / n)[seen].max(), np.abs(below - (rank + 1) / n)[seen].max()))


def outcome(out: Path) -> list[str]:
    lines = []
    for ensemble in ("gaussian", "orthogonal"):
        for depth in depths(out, ensemble):
            theory, run = (
                ji.load(out / f"{ensemble}_{depth}_{kind}.npz") for kind in ("theory", "simulation")
            )
            s = run.extra["jacobian_singular_values"]
            lines.append(
                f"{ensemble} L={depth}: Kolmogorov distance {distance(theory, run):.4f}; variance of s² theory "
                f"{theory.variance:.4g}, simulated {np.var(s**2):.4g}; largest s theory "
                f"{np.exp(theory.log_edge / 2):.4g}, simulated {s.max():.4g}"
            )
    return lines


def main(out: Path, target: Path) -> Path:
    figure, panels = new_figure(1, 3, size=(14.0, 4.4))
    for ax, ensemble in zip(panels, ("gaussian", "orthogonal"), strict=False):
        for n, depth in enumerate(depths(out, ensemble)):
            theory, run = (
                ji.load(out / f"{ensemble}_{depth}_{kind}.npz") for kind in ("theory", "simulation")
            )
            style = look(n)
            logs = run.extra["jacobian_log_singular_values"]
            low = 0.5 * theory.log_points[np.searchsorted(theory.cumulative(theory.log_points), 0.01)]
            edges = np.linspace(max(low, -12.0), 0.5 * theory.log_edge * 1.02 + 0.05, 46)
            count, _ = np.histogram(logs, edges)
            height = count / logs.size / np.diff(edges)
            ax.stairs(height, np.exp(edges), color=style.colour, fill=True, alpha=0.25)
            ax.plot(
                theory.singular_values,
                2.0 * theory.log_density,
                color=style.colour,
                ls=style.dash,
                lw=1.4,
                label=f"L = {depth}",
            )
        setup = f"width {run.config['widths'][0]}, {logs.shape[0]} seeds"
        ax.set_xscale("log")
        ax.set_xlim(5e-5, 20.0)
        ax.set_ylim(bottom=0.0)
        ax.set(
            xlabel="singular value s",
            ylabel="density of log s",
            title=f"{ensemble}: theory (lines), {setup} (bars)",
        )
        ax.legend(fontsize=8, loc="upper left")
    ax = panels[2]
    for n, (kind, text) in enumerate(
        (
            ("gaussian", "Gaussian, σb² = 0.0025"),
            ("orthogonal", "orthogonal, σb² = 0.0025"),
            ("isometric", "orthogonal, q* = 1/(4√L)"),
        )
    ):
        found = sorted(
            (r.config["depth"], r.relative_variance, r.log_edge)
            for r in map(ji.load, out.glob(f"{kind}_*_summary.npz"))
        )
        x, variance, edge = (np.asarray(v) for v in zip(*found, strict=True))
        style = look(n)
        ax.plot(x, variance, color=style.colour, marker=style.marker, ms=4, label=f"Var s²: {text}")
        ax.plot(
            x,
            np.exp(0.5 * edge),
            color=style.colour,
            marker=style.marker,
            ms=4,
            ls="--",
            mfc="white",
            label="largest s",
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(xlabel="depth L", ylabel="Var s², largest s", title="on the edge of chaos, E s² = 1 (theory)")
    ax.legend(fontsize=8)
    return finish(figure, target)
