"""Mergeable moments: count, mean, second central moment, extremes; float64 on the host.

A Monte-Carlo figure travels with its standard error, and the figure of two chunks together is computed from
the figures of each (Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
sample variances", eq. 2.1).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

__all__ = ["Moments"]


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Moments over samples (seeds) of an array-valued quantity.

    `count` is an integer; `mean`, `m2` (the sum of squared deviations), `min` and `max` have the quantity's
    shape, float64. Infinite samples make the mean infinite and the standard error nan: nothing is dropped.
    """

    count: int
    mean: np.ndarray
    m2: np.ndarray
    min: np.ndarray
    max: np.ndarray

    @staticmethod
    def of(samples: Any) -> Moments:
        """Moments of `samples`, whose leading axis counts the samples."""
        x = np.asarray(samples, dtype=np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            mean = x.mean(axis=0)
            m2 = np.square(x - mean).sum(axis=0)
        return Moments(x.shape[0], mean, m2, x.min(axis=0), x.max(axis=0))

    @staticmethod
    def exact(value: Any) -> Moments:
        """A figure without sampling error (a theory's): count 0, standard error 0."""
        x = np.asarray(value, dtype=np.float64)
        return Moments(0, x, np.zeros_like(x), x, x)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of samples together."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"cannot merge moments of shapes {self.mean.shape} and {other.mean.shape}.")
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        n = self.count + other.count
        with np.errstate(invalid="ignore", over="ignore"):
            delta = other.mean - self.mean
            shifted = self.mean + delta * (other.count / n)
            weighted = (self.mean * self.count + other.mean * other.count) / n
            mean = np.where(np.isfinite(delta), shifted, weighted)
            m2 = self.m2 + other.m2 + np.square(delta) * (self.count * other.count / n)
        return Moments(n, mean, m2, np.minimum(self.min, other.min), np.maximum(self.max, other.max))

    @property
    def variance(self) -> np.ndarray:
        """Unbiased variance over samples; nan for a single sample, 0 for an exact figure."""
        if self.count == 0:
            return np.zeros_like(self.mean)
        if self.count == 1:
            return np.full_like(self.mean, np.nan)
        return self.m2 / (self.count - 1)

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of the mean; nan for a single sample, 0 for an exact figure."""
        return np.sqrt(self.variance / max(self.count, 1))
