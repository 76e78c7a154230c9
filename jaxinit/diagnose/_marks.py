"""The worst that is said of each site, as a mark beside its row in a table."""

from __future__ import annotations

import numpy as np

from jaxinit.diagnose._diagnose import diagnose
from jaxinit.records import Propagation

#: Severity -> its mark, worst first; notes have none.
MARKS = {"error": "✗", "warning": "!", "likely": "?"}


def marks(record: Propagation) -> tuple[str, ...]:
    """For each site the mark of the worst finding that speaks of it, of a range it is in or a parameter of it; else "".

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.diagnose import marks
        >>> marks(ji.meanfield.propagate(ji.Network(3, 64, "relu", weight_variance=1e5)))
        ('✗', '✗', '✗')
    """
    with np.errstate(all="ignore"):
        found = diagnose(record)
    place = {name: i for i, name in enumerate(record.sites)}
    for i, site in enumerate(record.layout):
        for name in site.parameters:
            place.setdefault(name, i)
    out = [""] * len(record.sites)
    for f in reversed([f for f in found if f.severity in MARKS]):
        at = [place[name] for name in f.where if name in place]
        for i in range(min(at), max(at) + 1) if at else ():
            out[i] = MARKS[f.severity]
    return tuple(out)
