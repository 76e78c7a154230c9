"""Uncertainty over seeds by the bootstrap (Efron 1979), with infinite values for what never happened.

Intervals are percentile intervals over resampled seeds, drawn by a fixed generator, so that a record always
gives the same figures. With n seeds no interval over seeds can be wider than their range: below about six
seeds it covers less than its nominal 95 %.
"""

from __future__ import annotations

import dataclasses

import numpy as np

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval over seeds; infinite where the event did not happen."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def resamples(count: int, draws: int = RESAMPLES, stream: int = 0) -> np.ndarray:
    """`(draws, count)` indices of seeds, drawn with replacement; the same at every call for a stream."""
    return np.random.default_rng([20150206, stream]).integers(0, count, size=(draws, count))


def interval(replicates: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of replicates along axis 0, by order statistics: infinities pass."""
    ordered = np.sort(replicates, axis=0)
    tail = (1.0 - level) / 2.0 * (len(ordered) - 1)
    return ordered[int(np.floor(tail))], ordered[int(np.ceil(len(ordered) - 1 - tail))]


def median_estimate(values: np.ndarray, replicates: np.ndarray) -> Estimate:
    """The median of `values` (seeds) with the interval of the medians of `replicates` (draws, seeds)."""
    low, high = interval(np.median(replicates, axis=1))
    return Estimate(float(np.median(values)), float(low), float(high))


def superiority(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """P(a random entry of `a` exceeds a random entry of `b`), ties counted half, along the last axis.

    Vargha & Delaney (2000); the "probability of improvement" of Agarwal et al. (2021).
    """
    left, right = a[..., :, None], b[..., None, :]
    return np.mean((left > right) + 0.5 * (left == right), axis=(-2, -1))
