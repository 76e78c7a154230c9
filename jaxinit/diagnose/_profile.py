"""The logarithm of a second moment along depth, and its change from one end to the other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxinit.diagnose._certainty import Figure
from jaxinit.records import Propagation
from jaxinit.records._depth import positions

#: With fewer seeds their spread is known badly: that between layers is used beside it.
FEW = 8
#: The highest power of depth that is taken for one: streams grow like depth or its square. What a few layers change by
#: more than that is no power.
_STEEPEST = 5.0


@dataclasses.dataclass(frozen=True)
class Profile:
    """A logarithm by site, averaged over inputs: mean over seeds, standard error, and samples if kept."""

    sites: tuple[str, ...]
    x: np.ndarray
    log: np.ndarray
    stderr: np.ndarray
    count: int
    samples: np.ndarray | None

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation over seeds, by site; nan for one seed, 0 for theory."""
        return self.stderr * math.sqrt(self.count)

    def finite(self) -> Profile:
        """Without the sites at which there is no number."""
        return self.at(np.flatnonzero(np.isfinite(self.log)))

    def at(self, index: Sequence[int] | np.ndarray) -> Profile:
        """Some of the sites, in order."""
        chosen = np.asarray(index, dtype=int)
        samples = None if self.samples is None else self.samples[:, chosen]
        sites = tuple(self.sites[i] for i in chosen)
        return Profile(sites, self.x[chosen], self.log[chosen], self.stderr[chosen], self.count, samples)

    def reversed(self) -> Profile:
        """From the last site to the first, as a gradient travels."""
        back = self.at(np.arange(len(self.sites))[::-1])
        return dataclasses.replace(back, x=self.x[-1] - back.x)


def units(record: Propagation) -> np.ndarray | None:
    """Numbers of values at each site where they are known; of a probed place with its examples, the same for all."""
    if record.layout:
        return np.array([max(math.prod(s.shape), 1) for s in record.layout], dtype=float)
    widths = record.config.get("widths")
    if widths is None or len(widths) != len(record.sites):
        return None
    return np.asarray(widths, dtype=float)


def seen_units(record: Propagation, seeds: int) -> np.ndarray:
    """How many units were seen at each site, in all seeds together; 0 where it is not known."""
    known = np.array([s.units for s in record.layout], float) if record.layout else units(record)
    return np.zeros(len(record.sites)) if known is None else known * seeds


def profile(record: Propagation, statistic: str) -> Profile | None:
    """The profile of a logarithmic statistic, None where it was not recorded.

    Gradients are summed over units where their number is known, since a well-scaled layer preserves the sum: the
    mean changes with the width alone. Sites at which the figure does not exist for any seed are left out.
    """
    stat = getattr(record, statistic)
    if stat is None or not stat.mean.size:
        return None
    with np.errstate(invalid="ignore"):
        log, stderr = stat.mean.mean(axis=1), stat.stderr.mean(axis=1)
    samples = None
    if stat.samples is not None and stat.count > 1:
        samples = np.asarray(stat.samples, np.float64).mean(axis=2)
    known = units(record) if statistic == "log_grad_second_moment" else None
    if known is not None:
        log = log + np.log(known)
        samples = None if samples is None else samples + np.log(known)
    out = Profile(record.sites, positions(record.sites), log, stderr, stat.count, samples)
    return out.at(np.flatnonzero(exists(stat)))


def exists(stat: object) -> np.ndarray:
    """Sites at which a statistic is defined for some seed and input; a theory's are, where they are numbers."""
    shape = (stat.mean.shape[0], -1)  # type: ignore[attr-defined]
    undefined = np.isnan(stat.mean) & (stat.defined == 0)  # type: ignore[attr-defined]
    return np.asarray(~undefined.reshape(shape).all(axis=1))


@dataclasses.dataclass(frozen=True)
class Change:
    """log(last / first): `typical`, its mean over seeds, and `annealed`, the log of the mean ratio.

    If E[ratio] = 1 and log ratio is about normal with variance v, the typical network loses v / 2: that is what
    finite width does to a well-scaled network (v = 5 depth / width and a drift of -5 depth / (2 width) for He-
    initialized ReLU; Hanin & Nica 2020). `annealed` = typical + v / 2 takes it out, so that scale is told apart
    from width. `spread` is the standard deviation over seeds, as measured; of one network, that of the walk.
    """

    typical: Figure
    annealed: Figure
    spread: float


def change(p: Profile, strands: Sequence[np.ndarray] = ()) -> Change:
    """The change over a profile of at least two finite sites.

    The standard error is that over seeds of their own differences where samples were kept; else the bound
    stderr(first) + stderr(last), and the variance of the difference is the difference of the variances, as for a
    walk of independent steps. With one seed, and beside it with fewer than eight, the spread between layers is
    used: the steps of a walk tell its variance. Of sites of several roles that take turns each of the `strands`, the
    places of one role in the profile, is a walk.
    """
    value, steps = float(p.log[-1] - p.log[0]), np.diff(p.log)
    if p.count == 0:
        return Change(Figure(value), Figure(value), 0.0)
    m, n = len(steps), p.count
    walk = max((wander(p.log[one]) for one in strands), default=0.0) if strands else wander(p.log)
    if n == 1:
        basis = "one network, spread between layers"
        v, dof_v = walk**2, max(m - 1, 1)
        spread = walk
        typical = Figure(value, walk, math.inf, basis)
    else:
        if p.samples is not None:
            own = p.samples[:, -1] - p.samples[:, 0]
            error, v = float(own.std(ddof=1)) / math.sqrt(n), float(own.var(ddof=1))
        else:
            error = float(p.stderr[-1] + p.stderr[0])
            v = max(float(p.spread[-1] ** 2 - p.spread[0] ** 2), 0.0)
        spread = math.sqrt(v)
        dof, dof_v = n - 1, n - 1
        if n < FEW:
            error, dof = max(error, walk), n - 1 + max(m - 1, 0)
            v, dof_v = max(v, n * walk**2), dof
        typical = Figure(value, error, dof, f"{n} seeds")
    shift_error = 0.5 * v * math.sqrt(2.0 / dof_v)
    annealed = dataclasses.replace(
        typical, value=value + 0.5 * v, stderr=math.hypot(typical.stderr, shift_error)
    )
    return Change(typical, annealed, spread)


def wander(log: np.ndarray) -> float:
    """Standard deviation of the end of a walk about its trend, from the walk itself: 0 for fewer than two steps.

    The differences of successive steps have twice their variance and hardly any of a smooth trend (von Neumann
    1941, "Distribution of the ratio of the mean square successive difference to the variance").
    """
    steps = np.diff(log)
    if len(steps) < 2:
        return 0.0
    return math.sqrt(0.5 * len(steps) * float(np.mean(np.square(np.diff(steps)))))


def is_exponential(x: np.ndarray, log: np.ndarray) -> bool:
    """Whether a straight line in depth fits a log better than one in log depth: a factor a layer, or a power.

    Residual streams with bounded branches grow like depth, critical tanh networks decay like 1 / depth; stacks
    with a wrong gain change by a factor a layer.

    Example:
        >>> import numpy as np
        >>> from jaxinit.diagnose._profile import is_exponential
        >>> depth = np.arange(1.0, 31.0)
        >>> is_exponential(depth, 0.1 * depth), is_exponential(depth, np.log(depth))
        (True, False)
    """
    if len(x) < 4:
        return True

    def fit(t: np.ndarray) -> tuple[float, float]:
        design = np.stack([np.ones_like(t), t], axis=1)
        line = np.linalg.lstsq(design, log, rcond=None)[0]
        residual = log - design @ line
        return float(residual @ residual), float(line[1])

    (misfit, _), (other, power) = fit(x), fit(np.log(x - x[0] + 1.0))
    return misfit <= other or abs(power) > _STEEPEST
