"""A figure with its uncertainty over seeds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxinit._core.moments import Moments
from jaxinit.records._codec import saved
from jaxinit.records._equality import ByValue


@saved
@dataclasses.dataclass(frozen=True, eq=False)
class Statistic(ByValue):
    """Mean over seeds with its standard error, extremes and count.

    `mean`, `stderr`, `min` and `max` share one shape, e.g. (sites, inputs). `count` is the number of seeds; a
    theory's figure has count 0 and standard error 0. A single seed has standard error nan. `defined` counts,
    per entry, the seeds on which the figure exists (the correlation with a dead network's zero output does
    not): mean, stderr, min and max are over those. `samples`, when kept, has the seeds as its leading axis.
    """

    mean: np.ndarray
    stderr: np.ndarray
    count: int
    min: np.ndarray
    max: np.ndarray
    defined: np.ndarray
    samples: np.ndarray | None = None

    @staticmethod
    def from_moments(moments: Moments, count: int, samples: Any = None) -> Statistic:
        kept = None if samples is None else np.asarray(samples)
        return Statistic(
            moments.mean, moments.stderr, count, moments.min, moments.max, np.asarray(moments.count), kept
        )

    @staticmethod
    def exact(value: Any) -> Statistic:
        """A theory's figure."""
        return Statistic.from_moments(Moments.exact(value), 0)

    @staticmethod
    def of(samples: Any, keep: bool = False) -> Statistic:
        """From samples whose leading axis counts the seeds."""
        x = np.asarray(samples)
        return Statistic.from_moments(Moments.of(x), x.shape[0], x if keep else None)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape)

    def __repr__(self) -> str:
        return f"Statistic(shape={self.shape}, count={self.count})"
