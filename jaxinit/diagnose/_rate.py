"""How fast a signal grows or falls, per layer and end to end, with its uncertainty."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxinit.records import Propagation
from jaxinit.records._depth import positions


@dataclasses.dataclass(frozen=True)
class Rate:
    """A second moment from the first site to the last.

    `factor` is exp(b), b the least-squares slope of the mean log second moment (averaged over inputs) against
    depth, with the standard error `stderr` over seeds; nan where the signal is not finite everywhere. `first`
    and `last` are mean logarithms (natural) at the ends with `last_stderr`; `count` is the number of seeds.
    """

    factor: float
    stderr: float
    first: float
    last: float
    last_stderr: float
    count: int
    dies_at: str | None

    @property
    def decades(self) -> float:
        """log10 of last over first; nan if either is nan or both are infinite."""
        with np.errstate(invalid="ignore"):
            return float(np.subtract(self.last, self.first) / math.log(10.0))


def rate(record: Propagation, statistic: str = "log_second_moment") -> Rate | None:
    """The rate of a logarithmic statistic, None where it was not recorded.

    With kept samples the slope is fitted seed by seed, so its standard error counts that neighbouring layers
    share a seed. Without, the standard error is the bound sum |w_l| stderr_l over the fit's weights w_l.
    """
    stat = getattr(record, statistic)
    if stat is None or not stat.mean.size:
        return None
    with np.errstate(invalid="ignore"):
        mean, stderr = stat.mean.mean(axis=1), stat.stderr.mean(axis=1)
    x = positions(record.sites)
    factor = error = math.nan
    if np.isfinite(mean).all() and len(x) > 1:
        weights = (x - x.mean()) / np.square(x - x.mean()).sum()
        factor = math.exp(float(weights @ mean))
        if stat.samples is not None and stat.count > 1:
            slopes = np.asarray(stat.samples, np.float64).mean(axis=2) @ weights
            error = float(slopes.std(ddof=1)) / math.sqrt(stat.count)
        else:
            error = float(np.abs(weights) @ stderr)
    dead = np.isneginf(mean)
    return Rate(
        factor, factor * error, float(mean[0]), float(mean[-1]), float(stderr[-1]), stat.count,
        record.sites[int(np.argmax(dead))] if dead.any() else None,
    )  # fmt: skip
