"""Where the sites of a record stand along the depth of the network."""

from __future__ import annotations

import numpy as np


def positions(sites: tuple[str, ...]) -> np.ndarray:
    """Layer numbers, or 1, 2, ... for named sites."""
    if all(s.isdigit() for s in sites):
        return np.array([int(s) for s in sites], dtype=float)
    return np.arange(1, len(sites) + 1, dtype=float)
