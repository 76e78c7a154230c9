"""A figure with its uncertainty: intervals, and how surely it lies beyond a threshold."""

from __future__ import annotations

import dataclasses
import math

from jaxinit.diagnose.thresholds import LIKELY, SURE

#: Above this many degrees of freedom Student's law is taken as normal (tails down to 1e-4 agree to 2 %).
_NORMAL = 400
#: More seeds than this are not asked for.
_MANY = 256


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


def trigamma(x: float) -> float:
    """The second derivative of log Gamma: the variance of the log of a Gamma variable of shape `x`; error below 1e-8.

    By its recurrence up to 8 and the asymptotic series there (Abramowitz & Stegun 1964, 6.4.6 and 6.4.12). The log of
    a mean square of n normal numbers has variance trigamma(n / 2).

    Example:
        >>> from jaxinit.diagnose._certainty import trigamma
        >>> round(trigamma(1.0), 6), round(trigamma(0.5), 6)  # pi^2 / 6, pi^2 / 2
        (1.644934, 4.934802)
    """
    total = 0.0
    while x < 8.0:
        total, x = total + 1.0 / (x * x), x + 1.0
    y = 1.0 / (x * x)
    return total + 1.0 / x + 0.5 * y + y / x * (1.0 / 6.0 - y * (1.0 / 30.0 - y / 42.0))


def log_mean(x: float) -> float:
    """E log(g / x) of a Gamma variable g of shape `x`: digamma(x) - log(x), at most 0; error below 1e-8.

    The log of a mean square of n normal numbers is log_mean(n / 2) on average, if their variance is 1.

    Example:
        >>> from jaxinit.diagnose._certainty import log_mean
        >>> round(log_mean(1.0), 6), round(log_mean(0.5), 6)  # -0.577216, -0.577216 - log 2
        (-0.577216, -1.270363)
    """
    shift, start = 0.0, x
    while x < 8.0:
        shift, x = shift - 1.0 / x, x + 1.0
    y = 1.0 / (x * x)
    return shift + math.log(x / start) - 0.5 / x - y * (1.0 / 12.0 - y * (1.0 / 120.0 - y / 252.0))


def how_sure(p_value: float, severity: str = "warning") -> str | None:
    """The severity of what would be a warning: that if it is sure, "likely" if its estimate says so, else None."""
    return severity if p_value < SURE else "likely" if p_value < LIKELY else None


def more_seeds(severity: str, p_value: float, count: int) -> str:
    """What to add to the sentence of a finding that is likely: how many seeds would make it sure.

    Errors fall as one over the root of the number of seeds: (z(SURE) / z(p))^2 times as many, a power of two.

    Example:
        >>> from jaxinit.diagnose._certainty import more_seeds
        >>> more_seeds("likely", 0.05, 4)
        ' Likely, not sure yet: seeds=16 would tell.'
    """
    if severity != "likely":
        return ""
    z = quantile(min(max(p_value, SURE), 0.5 - 1e-9), math.inf)
    wanted = 2.0 ** math.ceil(math.log2(max(count, 1) * (quantile(SURE, math.inf) / z) ** 2))
    if wanted > _MANY:
        return (
            f" Likely, not sure: it is close to the threshold; seeds={max(_MANY, 2 * count)} would tell more."
        )
    return f" Likely, not sure yet: seeds={max(wanted, 2.0 * max(count, 1)):.0f} would tell."


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
