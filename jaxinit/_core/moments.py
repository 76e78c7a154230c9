"""Mergeable moments: count, mean, second central moment, extremes; float64 on the host.

A Monte-Carlo figure travels with its standard error, and the figure of two chunks together is computed from
the figures of each (Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
sample variances").
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

__all__ = ["Moments"]


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Moments over samples (seeds) of an array-valued quantity.

    `mean`, `m2` (the sum of squared deviations), `min` and `max` have the quantity's shape, float64; `count`
    is, per element, the number of samples on which the quantity is defined. A nan sample means "undefined
    here" (the correlation of a zero vector) and is not counted; infinite samples make the mean infinite and
    the standard error nan.
    """

    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    min: np.ndarray
    max: np.ndarray

    @staticmethod
    def of(samples: Any) -> Moments:
        """Moments of `samples`, whose leading axis counts the samples."""
        x = np.asarray(samples, dtype=np.float64)
        defined = ~np.isnan(x)
        count = defined.sum(axis=0)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            mean = np.where(defined, x, 0.0).sum(axis=0) / count
            m2 = np.where(defined, np.square(x - mean), 0.0).sum(axis=0)
        low = np.where(defined, x, np.inf).min(axis=0)
        high = np.where(defined, x, -np.inf).max(axis=0)
        none = count == 0
        return Moments(count, *(np.where(none, np.nan, v) for v in (mean, m2, low, high)))

    @staticmethod
    def exact(value: Any) -> Moments:
        """A figure without sampling error (a theory's): count 0, standard error 0."""
        x = np.asarray(value, dtype=np.float64)
        return Moments(np.zeros(x.shape, np.int64), x, np.zeros_like(x), x, x)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of samples together."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"cannot merge moments of shapes {self.mean.shape} and {other.mean.shape}.")
        n = self.count + other.count
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            delta = other.mean - self.mean
            shifted = self.mean + delta * (other.count / n)
            weighted = (self.mean * self.count + other.mean * other.count) / n
            mean = np.where(np.isfinite(delta), shifted, weighted)
            m2 = self.m2 + other.m2 + np.square(delta) * (self.count * other.count / n)
        low, high = np.fmin(self.min, other.min), np.fmax(self.max, other.max)

        def pick(both: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.where(other.count == 0, a, np.where(self.count == 0, b, both))

        return Moments(n, pick(mean, self.mean, other.mean), pick(m2, self.m2, other.m2), low, high)

    @property
    def variance(self) -> np.ndarray:
        """Unbiased variance over samples; nan for a single sample, 0 for an exact figure."""
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.where(self.count == 1, np.nan, self.m2 / (self.count - 1))
        return np.where(self.count == 0, self.m2, spread)

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of the mean; nan for a single sample, 0 for an exact figure."""
        return np.sqrt(self.variance / np.maximum(self.count, 1))
