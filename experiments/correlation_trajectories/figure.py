"""The figure of the records that run.py saved."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from _common import finish

import jaxinit as ji
from jaxinit.activations import moments
from jaxinit.meanfield import critical
from jaxinit.plot import new_figure
from jaxinit.plot._style import look

CASES = ("relu critical", "relu ordered", "tanh ordered", "tanh critical", "tanh chaotic")
STARTS = (0.0, 0.5, 0.9)


def records(out: Path, name: str, start: float) -> tuple[ji.Propagation, ji.Propagation]:
    """(simulation, theory)."""
    stem = f"{name.replace(' ', '_')}_{start:g}"
    return ji.load(out / f"{stem}_simulation.npz"), ji.load(out / f"{stem}_theory.npz")


def tanh_law() -> float:
    """kappa in 1 - c_l ~ kappa / l for tanh on the edge at sigma_b^2 = 0.05.

    1 - C(1 - e) = e - a e^2 + ... with a = sigma_w^2 q E[phi''^2] / 2 for smooth phi, so that l (1 - c_l) -> 1 / a.
    """
    point = critical("tanh", 0.05)[0]
    bend = moments(
        lambda x: -2.0 * ji.activations.get("tanh")(x) * (1.0 - ji.activations.get("tanh")(x) ** 2), point.q
    )
    return 2.0 / (point.weight_variance * point.q * bend.second)


def outcome(out: Path) -> list[str]:
    """Largest deviations from theory, in figures and standard errors, and the tails on criticality."""
    lines = []
    for name in CASES:
        worst, score = 0.0, 0.0
        for start in STARTS:
            run, theory = records(out, name, start)
            # the first 50 layers, which all starts have
            difference = (run.correlation.mean - theory.correlation.mean)[:50, 0]
            worst = max(worst, float(np.abs(difference).max()))
            score = max(
                score, float((np.abs(difference) / np.maximum(run.correlation.stderr[:50, 0], 1e-7)).max())
            )
        lines.append(f"{name}: largest |simulated - theory| {worst:.4f} ({score:.1f} standard errors)")
    for name, power, law in (("relu critical", 2, 4.5 * math.pi**2), ("tanh critical", 1, tanh_law())):
        run, theory = records(out, name, 0.0)
        l = len(run.sites)
        found = [float(r.one_minus_correlation.mean[-1, 0]) * l**power for r in (run, theory)]
        lines.append(
            f"{name}: l^{power} (1 - c_l) at l = {l}: simulated {found[0]:.4g}, theory {found[1]:.4g}, limit {law:.4g}"
        )
    return lines


def main(out: Path, target: Path) -> Path:
    figure, (relu, tanh, tails) = new_figure(1, 3, size=(14.0, 4.4))
    for ax, activation in ((relu, "relu"), (tanh, "tanh")):
        names = [name for name in CASES if name.startswith(activation)]
        for n, name in enumerate(names):
            style = look(n)
            for start in STARTS:
                run, theory = records(out, name, start)
                shown = slice(0, min(50, len(run.sites)))
                layers = np.arange(1, len(run.sites) + 1)[shown]
                ax.plot(layers, theory.correlation.mean[shown, 0], color=style.colour, lw=1.2)
                spread = run.correlation.stderr * math.sqrt(run.count)
                ax.errorbar(
                    layers[::3], run.correlation.mean[shown, 0][::3], spread[shown, 0][::3], fmt=style.marker,
                    color=style.colour, ms=3.5, lw=0.8, label=name if start == 0.0 else None,
                )  # fmt: skip
        setup = f"width {run.config['widths'][0]}, {run.count} seeds"
        ax.set(
            xlabel="layer l",
            ylabel="correlation c_l",
            title=f"{activation}: theory (lines), {setup} (±1 s.d.)",
            ylim=(-0.05, 1.03),
        )
        ax.legend(fontsize=8)
    for n, (name, power, law) in enumerate(
        (("relu critical", 2, 4.5 * math.pi**2), ("tanh critical", 1, tanh_law()))
    ):
        run, theory = records(out, name, 0.0)
        layers, style = np.arange(1, len(run.sites) + 1), look(n)
        every = np.unique(np.geomspace(1, len(layers), 24).astype(int)) - 1
        tails.plot(
            layers,
            theory.one_minus_correlation.mean[:, 0],
            color=style.colour,
            lw=1.2,
            label=f"{name}, theory",
        )
        tails.errorbar(
            layers[every], run.one_minus_correlation.mean[every, 0], run.one_minus_correlation.stderr[every, 0],
            fmt=style.marker, color=style.colour, ms=3.5, lw=0.8, label="simulation (±1 s.e.)",
        )  # fmt: skip
        late = layers[len(layers) // 8 :]
        formula = "9π²/2 l²" if power == 2 else f"{law:.3g}/l"
        tails.plot(
            late,
            law / late**power,
            color="0.45",
            ls=(0, (1, 1.5)) if n else (0, (4, 2)),
            label=f"limit {formula}",
        )
    tails.set_xscale("log")
    tails.set_yscale("log")
    tails.set(xlabel="layer l", ylabel="1 − c_l", title="on criticality: algebraic, from c = 0")
    tails.legend(fontsize=8, loc="lower left")
    return finish(figure, target)
