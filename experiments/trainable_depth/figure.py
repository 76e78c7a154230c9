"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _common import finish

import jaxinit as ji
from jaxinit.plot import new_figure
from jaxinit.plot._style import look


def heat_map(out: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[ji.Convergence]]:
    """Weight variances, depths, median test accuracy `(depth, weight)` at the chosen rate, the records."""
    found = [ji.load(path) for path in sorted(out.glob("depth_*.npz"))]
    depths = np.array([int(path.stem.split("_")[1]) for path in sorted(out.glob("depth_*.npz"))])
    weights = np.array([float(name) for name in found[0].initializers])
    accuracy = np.array([[estimate.value for estimate in record.summary().values()] for record in found])
    return weights, depths, accuracy, found


def trainable(weights: np.ndarray, depths: np.ndarray, accuracy: np.ndarray, level: float) -> np.ndarray:
    """The depth at which the accuracy falls through the level, between the depths tried; inf if it never does."""
    out = np.full(len(weights), np.inf)
    for n in range(len(weights)):
        below = np.flatnonzero(accuracy[:, n] < level)
        if below.size == 0:
            continue
        k = below[0]
        if k == 0:
            out[n] = depths[0]
        else:
            high, low = accuracy[k - 1, n], accuracy[k, n]
            out[n] = depths[k - 1] + (high - level) / (high - low) * (depths[k] - depths[k - 1])
    return out


def outcome(out: Path, level: float = 0.5) -> list[dict[str, object]]:
    """By weight variance: the depth up to which networks train, and 6 xi_c of the theory."""
    weights, depths, accuracy, _ = heat_map(out)
    theory = ji.load(out / "theory.npz")
    xi = np.interp(weights, theory.weight_variances, theory.xi_c[:, 0])
    reached = trainable(weights, depths, accuracy, level)
    return [
        {"σw²": f"{w:g}", "ξ_c": float(x), "6 ξ_c": 6 * float(x), "trains to": float(d)}
        for w, x, d in zip(weights, xi, reached, strict=True)
    ]


def main(out: Path, target: Path) -> Path:
    weights, depths, accuracy, found = heat_map(out)
    theory = ji.load(out / "theory.npz")
    figure, (heat, lines) = new_figure(1, 2, size=(12.0, 4.8))
    columns = np.concatenate([weights - np.diff(weights, prepend=weights[0] - 0.2) / 2, [weights[-1] + 0.3]])
    edges = np.concatenate([[0.0], (depths[1:] + depths[:-1]) / 2, [depths[-1] + 10.0]])
    mesh = heat.pcolormesh(columns, edges, accuracy, cmap="viridis", vmin=0.0, vmax=1.0, rasterized=True)
    heat.grid(False)
    heat.set_yticks(depths)
    six = 6 * theory.xi_c[:, 0]
    heat.plot(
        theory.weight_variances,
        np.where(six < edges[-1] * 3, six, np.nan),
        color="white",
        lw=2,
        label="6 ξ_c",
    )
    heat.plot(theory.weight_variances, 3 * theory.xi_c[:, 0], color="white", lw=1.2, ls="--", label="3 ξ_c")
    heat.set_ylim(0, edges[-1])
    heat.set_xlim(columns[0], columns[-1])
    legend = heat.legend(loc="upper right", facecolor="0.3", labelcolor="white")
    legend.get_frame().set_alpha(0.8)
    record = found[0]
    heat.set(
        xlabel="weight variance σw²", ylabel="layers",
        title=f"test accuracy after {record.steps} steps, median of {len(record.seeds)} seeds",
    )  # fmt: skip
    figure.colorbar(mesh, ax=heat, label="test accuracy at the best learning rate")
    for n, depth in enumerate(depths):
        style = look(n)
        lines.plot(
            weights, accuracy[n], color=style.colour, ls=style.dash, marker=style.marker, ms=4.5,
            label=f"{depth} layers",
        )  # fmt: skip
    lines.set(
        xlabel="weight variance σw²", ylabel="test accuracy", ylim=(-0.03, 1.03), title="the same, by depth"
    )
    lines.set_xlim(weights[0] - 0.1, weights[-1] + 0.9)
    lines.legend(fontsize=8, loc="center right")
    return finish(figure, target)
