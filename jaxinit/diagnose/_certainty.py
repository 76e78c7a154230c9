"""A figure with its uncertainty: intervals, and how surely it lies beyond a threshold."""

from __future__ import annotations

import dataclasses
import math

#: Above this many degrees of freedom Student's law is taken as normal (tails down to 1e-4 agree to 2 %).
_NORMAL = 400


def tail(t: float, dof: float) -> float:
    """P(T > t) of Student's law with `dof` degrees of freedom, an integer or infinite.

    By the finite sums for integer dof (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4); absolute error 1e-15.

    Example:
        >>> from jaxinit.diagnose._certainty import tail
        >>> round(tail(1.0, 1), 12), round(tail(2.0, math.inf), 6)
        (0.25, 0.02275)
    """
    if t < 0.0:
        return 1.0 - tail(-t, dof)
    if dof > _NORMAL or t == 0.0:
        return 0.5 * math.erfc(t / math.sqrt(2.0))
    n = int(dof)
    angle = math.atan(t / math.sqrt(n))
    cosine = math.cos(angle)
    term, total = (cosine, 0.0) if n % 2 else (1.0, 0.0)
    for k in range(1 if n % 2 else 0, n - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    inside = total * math.sin(angle)
    if n % 2:
        inside = 2.0 / math.pi * (angle + inside)
    return max(0.5 * (1.0 - inside), 0.0)


def quantile(p: float, dof: float) -> float:
    """t with P(T > t) = p, for p in (0, 1/2]."""
    low, high = 0.0, 1.0
    while tail(high, dof) > p and high < 1e12:
        low, high = high, 2.0 * high
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if tail(middle, dof) > p else (low, middle)
    return high


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(at least k of n) where each has probability p; 0 for more than 500, where a normal law serves as well.

    Example:
        >>> from jaxinit.diagnose._certainty import binomial_tail
        >>> binomial_tail(4, 4, 0.75), binomial_tail(1, 2, 0.5)
        (0.31640625, 0.75)
    """
    if not 0 < n <= 500:
        return 0.0
    return sum(math.comb(n, j) * p**j * (1.0 - p) ** (n - j) for j in range(k, n + 1))


@dataclasses.dataclass(frozen=True)
class Figure:
    """An estimate, its standard error, and the degrees of freedom of that error."""

    value: float
    stderr: float = 0.0
    dof: float = math.inf
    basis: str = "exact"

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided confidence interval."""
        if self.stderr == 0.0:
            return self.value, self.value
        half = quantile(0.5 * (1.0 - level), self.dof) * self.stderr
        return self.value - half, self.value + half

    def p_above(self, threshold: float) -> float:
        """Probability of a figure this high if the truth were at the threshold; 0 or 1 without error."""
        if math.isnan(self.value):
            return 1.0
        if self.stderr == 0.0:
            return 0.0 if self.value > threshold else 1.0
        return tail((self.value - threshold) / self.stderr, self.dof)

    def p_below(self, threshold: float) -> float:
        """The same for a figure this low."""
        return Figure(-self.value, self.stderr, self.dof).p_above(-threshold)

    def p_beyond(self, size: float) -> float:
        """The same for a figure at least this far from 0 on its own side."""
        return self.p_above(size) if self.value > 0.0 else self.p_below(-size)

    def __neg__(self) -> Figure:
        return dataclasses.replace(self, value=-self.value)

    def scaled(self, factor: float) -> Figure:
        """Times a positive number."""
        return dataclasses.replace(self, value=factor * self.value, stderr=factor * self.stderr)
