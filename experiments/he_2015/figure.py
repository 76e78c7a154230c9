"""The figure of the records that run.py saved, and the table of its README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _common import accuracy_curves, finish, rows

import jaxinit as ji
from jaxinit.plot import new_figure
from jaxinit.plot._style import look


def records(out: Path) -> dict[tuple[str, int, str], ji.Convergence]:
    """By data, depth and optimizer; digits first."""
    found = {}
    for path in sorted(out.glob("[!u]*_*_*.npz")):
        data, depth, optimizer = path.stem.rsplit("_", 2)
        found[data, int(depth), optimizer] = ji.load(path)
    return dict(sorted(found.items(), key=lambda item: (item[0][2] != "momentum", item[0])))


def outcome(out: Path) -> list[dict[str, object]]:
    """One row an initializer of each study, with the signal and the gradient before training."""
    out_rows = []
    for (data, depth, optimizer), record in records(out).items():
        second, gradient = (record.signals[name][:, 0, :, 0] for name in ("second_moment", "grad_rms"))
        for i, row in enumerate(rows(record)):  # before the first step, at any rate: (I, S, site)
            out_rows.append(
                {
                    "data": data, "layers": depth, "optimizer": optimizer, **row,
                    "output rms": float(np.sqrt(np.median(second[i, :, -1]))),
                    "first gradient": float(np.median(gradient[i, :, 0])),
                }
            )  # fmt: skip
    return out_rows


def main(out: Path, target: Path) -> Path:
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
        accuracy_curves(found[key], ax, "{}, {} layers, {}".format(*key))
    for ax in panels[len(shown) :]:
        ax.set_visible(False)
    return finish(figure, target)
