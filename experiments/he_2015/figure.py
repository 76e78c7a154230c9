"""The figure of the records that run.py saved, and the table of its README.

python experiments/he_2015/figure.py [--out DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import jaxinit as ji
from jaxinit.plot import curves, new_figure, save
from jaxinit.plot._style import look

HERE = Path(__file__).parent


def records(out: Path) -> dict[tuple[str, int, str], ji.Convergence]:
    """By data, depth and optimizer; digits first."""
    found = {}
    for path in sorted(out.glob("[!u]*_*_*.npz")):
        data, depth, optimizer = path.stem.rsplit("_", 2)
        found[data, int(depth), optimizer] = ji.load(path)
    return dict(sorted(found.items(), key=lambda item: (item[0][2] != "momentum", item[0])))


def outcome(out: Path) -> list[dict[str, object]]:
    """One row an initializer: test accuracy at its best rate, steps to the threshold, share of diverged runs."""
    rows = []
    for (data, depth, optimizer), record in records(out).items():
        accuracy, steps = record.summary(), record.steps_to()
        gradient = record.signals["grad_rms"][:, 0, :, 0]  # before the first step, at any rate: (I, S, site)
        for i, name in enumerate(record.initializers):
            second = record.signals["second_moment"][i, 0, :, 0]
            rows.append(
                {
                    "data": data, "depth": depth, "optimizer": optimizer, "initializer": name,
                    "rate": float(record.learning_rates[record.best_rate()[i]]),
                    "accuracy": str(accuracy[name]), "steps": str(steps[name].median),
                    "reached": f"{steps[name].reached} of {len(record.seeds)}",
                    "threshold": round(steps[name].threshold, 3),
                    "output_rms": float(np.sqrt(np.median(second[:, -1]))),
                    "first_gradient": float(np.median(gradient[i, :, 0])),
                    "diverged": float(record.divergence_rate()[i].mean()),
                }
            )  # fmt: skip
    return rows


def main(out: Path = HERE / "out", target: Path = HERE / "figure.png") -> Path:
    found = records(out)
    shown = [key for key in found if key[2] == "momentum"] + [key for key in found if key[2] != "momentum"][
        -1:
    ]
    columns = (1 + len(shown) + 1) // 2
    figure, axes = new_figure(2, columns, size=(4.6 * columns, 7.6))
    signal, *panels = np.ravel(axes)
    deepest = found[max((k for k in found if k[2] == "momentum"), key=lambda k: (k[0] == "digits", k[1]))]
    layers = np.arange(1, len(deepest.sites) + 1)
    for i, name in enumerate(deepest.initializers):
        style = look(i)
        second = deepest.signals["second_moment"][i, 0, :, 0]
        signal.plot(layers, np.median(second, axis=0), color=style.colour, ls=style.dash, label=name)
        signal.fill_between(
            layers, second.min(axis=0), second.max(axis=0), color=style.colour, alpha=0.16, lw=0
        )
    signal.set_yscale("log")
    signal.set(
        xlabel="layer", ylabel="mean of z² before training",
        title=f"{len(deepest.seeds)} seeds everywhere: median, least to greatest",
    )  # fmt: skip
    signal.legend()
    for ax, key in zip(panels, shown, strict=False):
        curves(found[key], "validation_accuracy", ax=ax).legend(fontsize=8, loc="upper left", ncols=2)
        ax.set(ylim=(-0.03, 1.2), yticks=np.linspace(0.0, 1.0, 6))
        ax.set_title("{}, {} layers, {}".format(*key))
    for ax in panels[len(shown) :]:
        ax.set_visible(False)
    for ax in figure.axes:
        ax.title.set_fontsize(10)
    return save(figure, target, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "out")
    arguments = parser.parse_args()
    main(arguments.out)
    for row in outcome(arguments.out):
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
