"""A calibration, site by site: what it found and what it left, and what it did to the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxinit.plot._rows import Marks, Panel, rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxinit.records import Calibration


def calibration(record: Calibration, *, theme: str = "light") -> Figure:
    """The statistic of every site before (rings) and after, and the size of its weights, on logarithmic axes.

    Sites stand in the order in which the model runs, the first on top; a line is a target that all share, "!" a site
    that needs attention. What is 0 or not finite stands on the edges; beyond 60 sites evenly spaced ones are drawn.

    Arguments:
        record: a Calibration.
        theme: "light" or "dark".

    Example:
        >>> import jax, flax.linen as nn, jaxinit as ji
        >>> model = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])
        >>> x = jax.random.normal(jax.random.key(1), (16, 4))
        >>> _, record = ji.calibrate(model, x, jax.random.key(0))
        >>> [ax.get_title() for ax in record.plot().axes]
        ['second moment', 'Weights']
    """

    def both(before: str, after: str) -> tuple[Marks, ...]:
        values = [np.asarray([getattr(s, name) for s in record], np.float64) for name in (before, after)]
        return Marks("before", values[0], look=1, hollow=True), Marks("after", values[1])

    targets = {s.target for s in record if not np.isnan(s.target)}
    lines = ((next(iter(targets)), "target"),) if len(targets) == 1 else ()
    title, _, rest = record.statistic.partition(", ")
    panels = (
        Panel(
            title,
            rest or "mean over units, positions and examples",
            both("before", "after"),
            lines,
            joined=True,
        ),
        Panel("Weights", "root mean square of the entries", both("scale_before", "scale_after"), joined=True),
    )
    names = [s.name if s.ok else f"! {s.name}" for s in record]
    found = ", ".join(f"{n} {status}" for status, n in record.counts.items())
    return rows(names, panels, caption=f"{record.method}: {found}", theme=theme)
