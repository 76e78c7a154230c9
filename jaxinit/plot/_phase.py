"""The phase diagram: order, chaos, and the edge between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinit.plot import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from jaxinit.records import PhaseDiagram


def _mesh(ax: Axes, record: PhaseDiagram, values: np.ndarray, title: str, theme: str, **options: Any) -> None:
    shown = np.ma.masked_invalid(np.asarray(values, np.float64))
    mesh = ax.pcolormesh(
        record.weight_variances, record.bias_variances, shown.T, shading="nearest", rasterized=True, **options
    )
    ink = _style.THEMES[theme].ink
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
    bar.ax.tick_params(labelsize=8, colors=ink)
    bar.outline.set_visible(False)
    ax.plot(
        record.critical_weight_variance,
        record.critical_bias_variance,
        color="#111111",  # no colour of a theme: dark on every page
        linewidth=3.0,
        zorder=3,
    )
    ax.plot(
        record.critical_weight_variance,
        record.critical_bias_variance,
        color="#ffffff",
        linewidth=1.4,
        zorder=4,
    )
    ax.set_xlim(float(np.min(record.weight_variances)), float(np.max(record.weight_variances)))
    ax.set_ylim(float(np.min(record.bias_variances)), float(np.max(record.bias_variances)))
    ax.grid(False)
    ax.set_xlabel("weight variance σw²")
    ax.set_ylabel("bias variance σb²")
    ax.set_title(title, color=ink, fontsize=10)


def phase_diagram(record: PhaseDiagram, *, theme: str = "light") -> Figure:
    """chi_1 with the edge of chaos, and the depth scale of correlations, over weight and bias variance.

    The edge (chi_1 = 1, where it lies within the grid) is the white line on both panels. Points where the
    quantity does not exist (no finite fixed point) are left blank.

    Arguments:
        record: a PhaseDiagram.
        theme: "light" or "dark".

    Example:
        >>> import numpy as np
        >>> from jaxinit import meanfield, plot
        >>> record = meanfield.phase_diagram("tanh", np.linspace(0.5, 3, 4), np.linspace(0.01, 0.5, 3))
        >>> [ax.get_title() for ax in plot.phase_diagram(record).axes[:2]]
        ['growth of gradients a layer, log₁₀ χ₁', 'depth scale of correlations, log₁₀ ξ_c (layers)']
    """
    _style.require("phase_diagram", record, "PhaseDiagram")
    figure, (left, right) = _style.new_figure(1, 2, size=(10.8, 4.4), theme=theme)
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log10(record.chi_1)
        scale = np.log10(record.xi_c)
    finite = np.abs(growth[np.isfinite(growth)])
    reach = float(np.quantile(finite, 0.9)) if finite.size else 1.0
    _mesh(
        left,
        record,
        growth,
        "growth of gradients a layer, log₁₀ χ₁",
        theme,
        cmap="RdBu_r",
        vmin=-reach,
        vmax=reach,
    )
    high = scale[np.isfinite(scale)]
    _mesh(
        right, record, scale, "depth scale of correlations, log₁₀ ξ_c (layers)", theme,
        cmap="viridis", vmax=float(np.quantile(high, 0.99)) if high.size else 1.0,
    )  # fmt: skip
    figure.suptitle(
        f"{record.label}: ordered (blue) and chaotic (red) phase, the edge of chaos in white",
        color=_style.THEMES[theme].ink, fontsize=11,
    )  # fmt: skip
    return figure
