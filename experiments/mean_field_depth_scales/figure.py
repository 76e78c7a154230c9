"""The figure of the records that run.py saved."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
from _common import finish

import jaxinit as ji
from jaxinit.meanfield import fixed_point
from jaxinit.plot import new_figure
from jaxinit.plot._style import look

BIAS = 0.05


def deviation(run: ji.Propagation, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """|c_l - c*| and its standard error, through 1 - c so that nothing cancels where c* = 1."""
    limit = fixed_point("tanh", weight, BIAS).one_minus_c
    stat = run.one_minus_correlation
    return np.abs(stat.mean[:, 0] - limit), stat.stderr[:, 0]


def window(run: ji.Propagation, weight: float) -> np.ndarray:
    """The layers of the fit: the deviation is below 0.15 and above 5 standard errors and 3e-3; none if fewer than 4."""
    gap, error = deviation(run, weight)
    layers = np.flatnonzero((gap < 0.15) & (gap > np.maximum(5.0 * error, 3e-3)))
    if (np.diff(layers) > 1).any():
        layers = layers[: np.argmax(np.diff(layers) > 1) + 1]
    return layers if len(layers) >= 4 else layers[:0]


def fitted(run: ji.Propagation, weight: float, layers: np.ndarray) -> float:
    """The depth scale of a straight line through log |c_l - c*| over the given layers."""
    if not len(layers):
        return np.nan
    return -1.0 / float(np.polyfit(layers, np.log(deviation(run, weight)[0][layers]), 1)[0])


def fitted_by_seed(run: ji.Propagation, weight: float, layers: np.ndarray) -> tuple[float, float]:
    """`fitted`, with its standard error by leaving out one seed at a time: layers of a seed are not independent."""
    samples = run.one_minus_correlation.samples[:, :, 0]
    if not len(layers):
        return np.nan, np.nan
    limit = fixed_point("tanh", weight, BIAS).one_minus_c
    total, count = samples.sum(axis=0), len(samples)
    without = np.abs((total - samples) / (count - 1) - limit)[:, layers]
    slopes = np.polyfit(layers, np.log(without).T, 1)[0]
    scales = -1.0 / slopes
    error = np.sqrt((count - 1) / count * np.square(scales - scales.mean()).sum())
    return fitted(run, weight, layers), float(error)


def growth(run: ji.Propagation) -> tuple[float, float]:
    """Growth a layer of the log of the mean square gradient towards the input, and its standard error."""
    stat, depth = run.log_grad_second_moment, len(run.sites)
    return float(stat.mean[0, 0] - stat.mean[-1, 0]) / (depth - 1), float(stat.stderr[0, 0]) / (depth - 1)


def outcome(out: Path) -> list[dict[str, float]]:
    """Theory and measurement for each weight variance."""
    rows = []
    for path in sorted(out.glob("simulation_*.npz")):
        run = ji.load(path)
        weight = float(path.stem.split("_")[1])
        weight = float(ast.literal_eval(run.config["network"].split("weight_variance=")[1].split(",")[0]))
        point = fixed_point("tanh", weight, BIAS)
        theory = ji.load(path.with_name(path.name.replace("simulation", "theory")))
        layers = window(run, weight)
        xi, xi_error = fitted_by_seed(run, weight, layers)
        rate, rate_error = growth(run)
        rows.append(
            {
                "weight_variance": weight, "xi_c": point.xi_c, "fitted": xi, "fitted_stderr": xi_error,
                "theory_same_layers": fitted(theory, weight, layers),
                "log_chi_1": float(np.log(point.chi_1)), "growth": rate, "growth_stderr": rate_error,
            }
        )  # fmt: skip
    return rows


def main(out: Path, target: Path) -> Path:
    diagram, scales = ji.load(out / "diagram.npz"), ji.load(out / "scales.npz")
    rows = outcome(out)
    figure, (plane, decay, scale, gradient) = new_figure(2, 2, size=(10.4, 7.8))

    chi = np.log10(diagram.chi_1)
    bound = float(np.abs(chi).max())
    mesh = plane.pcolormesh(
        diagram.weight_variances, diagram.bias_variances, chi.T, cmap="RdBu_r", vmin=-bound, vmax=bound,
        shading="nearest", rasterized=True,
    )  # fmt: skip
    plane.grid(False)
    plane.plot(diagram.critical_weight_variance, diagram.critical_bias_variance, color="black", lw=1.6)
    plane.plot(
        [r["weight_variance"] for r in rows], [BIAS] * len(rows), "o", color="black", mfc="white", ms=5
    )
    plane.text(1.0, 0.2, "ordered", fontsize=11)
    plane.text(3.2, 0.2, "chaotic", fontsize=11)
    plane.set(
        xlabel="weight variance σw²",
        ylabel="bias variance σb²",
        title="χ₁ and the edge of chaos (line); circles: simulated",
    )
    figure.colorbar(mesh, ax=plane, label="log₁₀ χ₁")

    for n, row in enumerate(rows):
        weight, style = row["weight_variance"], look(n)
        name = f"{weight:.3f}"
        theory, run = ji.load(out / f"theory_{name}.npz"), ji.load(out / f"simulation_{name}.npz")
        layers = np.arange(1, len(run.sites) + 1)
        decay.plot(layers, deviation(theory, weight)[0], color=style.colour, lw=1.2)
        gap, error = deviation(run, weight)
        gap = np.where(gap > 2.0 * error, gap, np.nan)
        edge = " (edge)" if abs(row["log_chi_1"]) < 1e-9 else ""
        decay.errorbar(
            layers[::2], gap[::2], error[::2], fmt=style.marker, color=style.colour, ms=3.5, lw=0.8,
            label=f"{weight:.3g}{edge}",
        )  # fmt: skip
    run = ji.load(out / f"simulation_{rows[0]['weight_variance']:.3f}.npz")
    setup = f"width {run.config['widths'][0]}, {run.count} seeds"
    decay.set_yscale("log")
    decay.set_ylim(1e-6, 1.0)
    decay.set(
        xlabel="layer l",
        ylabel="|c_l − c*|",
        title=f"theory (lines), simulation: {setup}",
    )
    decay.legend(title="σw²", fontsize=8, title_fontsize=8, ncols=2, loc="lower left", framealpha=0.9)

    axis = scales.weight_variances
    scale.plot(axis, scales.xi_c[:, 0], color=look(0).colour, label="ξ_c theory")
    scale.plot(axis, scales.xi_q[:, 0], color=look(1).colour, ls="--", label="ξ_q theory")
    scale.errorbar(
        [r["weight_variance"] for r in rows], [r["fitted"] for r in rows], [r["fitted_stderr"] for r in rows],
        fmt="o", color="black", mfc="white", ms=5, label="ξ_c fitted to simulation",
    )  # fmt: skip
    scale.plot(
        [r["weight_variance"] for r in rows], [r["theory_same_layers"] for r in rows], "x", color=look(3).colour,
        ms=6, label="ξ_c fitted to the theory's curve",
    )  # fmt: skip
    scale.axvline(next(r["weight_variance"] for r in rows if abs(r["log_chi_1"]) < 1e-9), color="0.6", lw=0.8)
    scale.set_ylim(0.0, 25.0)
    scale.set(
        xlabel="weight variance σw²",
        ylabel="depth scale (layers)",
        title=f"depth scales at σb² = {BIAS}; grey: the edge",
    )
    scale.legend(fontsize=8)

    gradient.axhline(0.0, color="0.6", lw=0.8)
    gradient.plot(axis, np.log(scales.chi_1[:, 0]), color=look(0).colour, label="log χ₁ theory")
    gradient.errorbar(
        [r["weight_variance"] for r in rows], [r["growth"] for r in rows], [r["growth_stderr"] for r in rows],
        fmt="o", color="black", mfc="white", ms=5, label="simulation",
    )  # fmt: skip
    gradient.set(
        xlabel="weight variance σw²",
        ylabel="log growth a layer",
        title="mean square of gradients, towards the input",
    )
    gradient.legend(fontsize=8)
    return finish(figure, target)
