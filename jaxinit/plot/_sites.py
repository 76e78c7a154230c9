"""The horizontal axis of a network: layer numbers, or names of its sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxinit.plot import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = 24  # written at most


def name_sites(ax: Axes, x: np.ndarray, sites: Sequence[str]) -> None:
    """Write the sites at their places: numbers as such, at most 24 of the names."""
    if all(name.isdigit() for name in sites):
        number_sites(ax, "layer")
        return
    step = -(-len(sites) // _NAMES)
    shared = shared_path(sites)
    names = [s[shared:] if len(s) <= shared + 24 else "…" + s[-23:] for s in sites[::step]]
    ax.set_xticks(x[::step], [name.replace("$", r"\$") for name in names], rotation=90, fontsize=7.5)


def number_sites(ax: Axes, label: str) -> None:
    """Whole numbers, and what they count."""
    ticker = _style.matplotlib().ticker
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def shared_path(sites: Sequence[str]) -> int:
    """Length of the leading path components that all sites share: `params/` says nothing."""
    length = 0
    for parts in zip(*(s.split("/")[:-1] for s in sites), strict=False):
        if len(sites) == 1 or len(set(parts)) > 1:
            break
        length += len(parts[0]) + 1
    return length
