"""Fixed points of the length and correlation maps: where a very deep network goes, and how fast.

The length map is scanned once for each activation, which brackets every fixed point, tangencies included; a
bracketed Newton iteration on exact integrals ends in a few steps. The correlation map is solved in log(1 -
c), so that points at any distance from criticality cost the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxinit._core import checks
from jaxinit._core.struct import record, static
from jaxinit.activations import Activation, moments
from jaxinit.activations._catalogue import resolve
from jaxinit.activations._panels import jumps
from jaxinit.activations._quadrature import panel_edges
from jaxinit.meanfield._maps import host_pair, second_moment, slope_second_moment

_GRID = np.logspace(-14.0, 10.0, 193)
_CRITICAL = 1e-9

#: What a status means, and what to do about it.
STATUS: dict[str, str] = {
    "stable": "The length map converges to q*.",
    "zero": (
        "q* = 0: the signal dies out with depth, so correlations have no limit (c* is undefined, not 1). Raise "
        "weight_variance or bias_variance."
    ),
    "diverges": (
        "No finite q*: the signal grows with depth without bound from this q0. Lower weight_variance (for the "
        "ReLU family: below 2 / (1 + slope^2) with a bias, at it without), or start from a smaller q0 if another "
        "fixed point is listed by all_fixed_points."
    ),
    "beyond": (
        "q* is larger than fixed points are looked for (1e10, or where a phi that oscillates cannot be resolved: sin "
        "from about 1e4); it is reported as inf. Lower weight_variance or bias_variance."
    ),
    "marginal": (
        "Every q is a fixed point (a homogeneous activation at its critical weight variance without bias, such as "
        "ReLU at weight_variance 2): the length stays what it was, q* = q0, and correlations approach 1 "
        "algebraically, not exponentially."
    ),
    "unstable": (
        "The fixed point is unstable in q (|chi_q| > 1): a real network leaves it. Start elsewhere (q0=) or see "
        "all_fixed_points for the stable ones."
    ),
    "discontinuous": (
        "phi jumps: gradients have no finite variance (chi_1 is infinite), and nearby inputs separate like the "
        "square root of their distance."
    ),
}


@record
class FixedPoint:
    """A fixed point of the length map, and that of the correlation map on it.

    Attributes:
        q: q*, the mean square of pre-activations after many layers; inf if it diverges or is beyond the search.
        chi_q: slope of the length map there; |chi_q| < 1 is stable.
        c: c*, the correlation any two different inputs end with; nan where q* = 0 or q* = inf.
        one_minus_c: 1 - c*, to full relative precision.
        chi_1: sigma_w^2 E[phi'^2]: the factor a layer on gradients' mean square.
        chi_c: slope of the correlation map at c*.
        xi_q: depth scale of lengths, -1 / log|chi_q|, in layers.
        xi_c: depth scale of correlations, -1 / log(chi_c).
        phase: "ordered" (chi_1 < 1), "critical" (to 1e-9) or "chaotic".
        status: a key of `jaxinit.meanfield.STATUS`; `message` says what it means and what to do.
    """

    q: float
    chi_q: float
    c: float
    one_minus_c: float
    chi_1: float
    chi_c: float
    xi_q: float
    xi_c: float
    phase: str = static()
    status: str = static()

    @property
    def message(self) -> str:
        """What the status means and what to do about it."""
        return STATUS[self.status]

    @property
    def stable(self) -> bool:
        """Whether a small change of q dies out."""
        return bool(abs(self.chi_q) < 1.0)


def fixed_point(
    activation: Any,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    q0: float = 1.0,
    input_variance: float = 0.0,
    input_correlation: float = 1.0,
) -> FixedPoint:
    """The fixed point a deep network reaches from pre-activations of mean square q0.

        q* = sigma_w^2 E[phi(sqrt(q*) z)^2] + sigma_b^2 + v,    c* = C(c*) on q*

    Of a recurrent network that reads inputs, where it settles when they keep one length, and one angle between the two
    sequences: c* says how far apart states are, 1 / xi_c how fast what was read before is forgotten (Chen, Pennington
    & Schoenholz 2018). Two sequences that are not the same end apart in every phase: c* < 1 for c_x < 1.

    Args:
        activation: name, callable or Activation.
        weight_variance: sigma_w^2, at least 0.
        bias_variance: sigma_b^2, at least 0.
        q0: where the length starts; it matters only where several fixed points are stable (gelu, silu).
        input_variance: v = sigma_u^2 |x_t|^2 / n of a recurrent network's inputs; 0 for other networks.
        input_correlation: c_x, the cosine of the two inputs of a step; 1: both sequences are the same, and only their
            first states differ.

    Returns:
        `FixedPoint`, floats to about 1e-12 (q*, chi) and 1e-10 (c*, xi), whatever the x64 flag. Its `status`
        and `message` say when there is no finite q*, when q* = 0, when every q is fixed.

    References:
        Poole et al. 2016; Schoenholz et al. 2017; Hayou, Doucet & Rousseau 2019.

    Example:
        >>> from jaxinit.meanfield import fixed_point
        >>> p = fixed_point("tanh", 2.25, 0.05)
        >>> round(p.q, 6), round(p.c, 6), round(p.chi_1, 6), p.phase
        (0.889425, 0.567225, 1.092338, 'chaotic')
        >>> fixed_point("relu", 2.0, 0.1).status
        'diverges'
        >>> read = fixed_point("tanh", 1.0, input_variance=0.1, input_correlation=0.0)  # unrelated sequences
        >>> round(read.q, 6), round(read.c, 6), round(read.xi_c, 3)
        (0.294985, 0.0, 2.305)
    """
    where = "fixed_point"
    activation = resolve(where, activation)
    sw2 = float(checks.number(where, "weight_variance", weight_variance, at_least=0.0))
    sb2 = float(checks.number(where, "bias_variance", bias_variance, at_least=0.0))
    q0 = float(checks.number(where, "q0", q0, above=0.0))
    v = float(checks.number(where, "input_variance", input_variance, at_least=0.0))
    c_x = float(checks.number(where, "input_correlation", input_correlation, at_least=-1.0, at_most=1.0))
    sb2, parted = sb2 + v, v * (1.0 - c_x)  # to lengths an input is as a bias
    homogeneous = _homogeneity(activation)
    if homogeneous is not None:
        return _homogeneous(activation, sw2, sb2, q0, homogeneous, parted)
    points = _lengths(activation, sw2, sb2)
    here = sw2 * second_moment(activation, q0) + sb2 - q0
    monotone = bool((scan(activation).growth >= -1e-12).all())
    if not monotone and len(points) == 1:
        return _describe(activation, sw2, sb2, points[0], parted)
    if here >= 0.0:
        above = [q for q in points if q >= q0]
        return _describe(activation, sw2, sb2, above[0] if above else math.inf, parted)
    below = [q for q in points if q <= q0]
    return _describe(activation, sw2, sb2, below[-1] if below else 0.0, parted)


def all_fixed_points(
    activation: Any, weight_variance: float, bias_variance: float = 0.0
) -> tuple[FixedPoint, ...]:
    """Every fixed point of the length map up to q = 1e10, stable or not, ascending in q.

    gelu and silu have several near sigma_w^2 = 2. At (1.99, 0.16) gelu has stable ones at 1.26 and 13.4 and an
    unstable one at 3.87 between them: where a signal ends depends on where it starts. With less bias (0.05) only the
    lower one is left; above sigma_w^2 = 2 the outer one is gone, and beyond the unstable one the signal diverges.
    For a marginal case (ReLU at 2) the one at q = 1 stands for all.

    Example:
        >>> from jaxinit.meanfield import all_fixed_points
        >>> [(p.q, p.status) for p in all_fixed_points("tanh", 0.9)]
        [(0.0, 'zero')]
        >>> [p.status for p in all_fixed_points("tanh", 1.5)]
        ['unstable', 'stable']
    """
    where = "all_fixed_points"
    activation = resolve(where, activation)
    sw2 = float(checks.number(where, "weight_variance", weight_variance, at_least=0.0))
    sb2 = float(checks.number(where, "bias_variance", bias_variance, at_least=0.0))
    homogeneous = _homogeneity(activation)
    if homogeneous is not None:
        point = _homogeneous(activation, sw2, sb2, 1.0, homogeneous)
        return (point,) if math.isfinite(point.q) else ()
    return tuple(_describe(activation, sw2, sb2, q) for q in _lengths(activation, sw2, sb2))


class Scan(NamedTuple):
    """Moments of an activation on a grid of q: E[phi^2], E[phi'^2] and their growths."""

    q: np.ndarray
    second: np.ndarray
    growth: np.ndarray
    slope: np.ndarray
    slope_growth: np.ndarray


@functools.lru_cache(maxsize=256)
def scan(activation: Activation) -> Scan:
    """The moments on [1e-14, 1e10], or as far as 400 panels resolve phi (sin: to about 1e4)."""
    rows: list[tuple[float, ...]] = []
    for q in _GRID.tolist():
        if len(panel_edges(activation, math.sqrt(q))) > 400:
            break
        m = moments(activation, q)
        rows.append((q, m.second, m.second_growth, m.slope_second, m.slope_second_growth))
    return Scan(*np.asarray(rows).T)


@functools.lru_cache(maxsize=256)
def _homogeneity(activation: Activation) -> float | None:
    """E[phi^2] / q if it is the same at every q (phi is positively homogeneous), else None."""
    ratio = scan(activation).second / scan(activation).q
    same = bool(np.all(np.isfinite(ratio)) and np.ptp(ratio) <= 1e-11 * abs(ratio[0]))
    return moments(activation, 1.0).second if same else None


def _lengths(activation: Activation, sw2: float, sb2: float) -> list[float]:
    """All q* in [0, 1e10], ascending."""
    table = scan(activation)

    def f(q: float) -> tuple[float, float]:
        m = moments(activation, q)
        return sw2 * m.second + sb2 - q, sw2 * m.second_growth - 1.0

    with np.errstate(over="ignore"):
        values, slopes = sw2 * table.second + sb2 - table.q, sw2 * table.growth - 1.0
    above, rising = np.sign(values), np.sign(slopes)
    ends: list[tuple[float, float]] = []
    points = [0.0] if sb2 == 0.0 and second_moment(activation, 0.0) == 0.0 else []
    lowest = sw2 * second_moment(activation, 0.0) + sb2
    if values[0] < 0.0 < lowest:
        ends.append((0.5 * min(lowest, sb2 if sb2 > 0.0 else lowest), float(table.q[0])))
    for i in range(len(table.q) - 1):
        lo, hi = float(table.q[i]), float(table.q[i + 1])
        rounding = 1e-13 * lo
        if above[i] * above[i + 1] <= 0.0:
            if abs(values[i]) > rounding or abs(values[i + 1]) > rounding:
                ends.append((lo, hi))
        elif above[i] * rising[i] < 0.0 < above[i + 1] * rising[i + 1]:  # it comes nearer, then leaves
            turn = _bracketed(lambda q: (f(q)[1], math.nan), lo, hi)
            if f(turn)[0] * above[i] < 0.0:
                ends += [(lo, turn), (turn, hi)]
    for lo, hi in ends:
        root = _bracketed(f, lo, hi)
        if not points or abs(root - points[-1]) > 1e-12 * root:
            points.append(root)
    return points


def _bracketed(f: Callable[[float], tuple[float, float]], lo: float, hi: float) -> float:
    """A root of f, which returns (value, derivative or nan), between lo and hi where its signs differ."""
    sign = 1.0 if f(hi)[0] >= 0.0 else -1.0
    x = math.sqrt(lo * hi) if lo > 0.0 else 0.5 * (lo + hi)
    for _ in range(200):
        value, slope = f(x)
        if value == 0.0:
            return x
        if sign * value > 0.0:
            hi = x
        else:
            lo = x
        new = x - value / slope if math.isfinite(slope) and slope != 0.0 else math.nan
        if not lo < new < hi:
            new = 0.5 * (lo + hi)
        if abs(new - x) <= 4e-16 * abs(new) or hi - lo <= 4e-16 * hi:
            return new
        x = new
    return x


def _phase(chi_1: float) -> str:
    if abs(chi_1 - 1.0) <= _CRITICAL:
        return "critical"
    return "ordered" if chi_1 < 1.0 else "chaotic"


def depth_scale(slope: float) -> float:
    """-1 / log|slope|: layers in which a deviation falls by a factor e; inf at |slope| = 1, 0 at slope = 0.

    Negative where the deviation grows.
    """
    slope = abs(slope)
    if math.isnan(slope):
        return math.nan
    if slope == 0.0 or math.isinf(slope):
        return 0.0
    return -1.0 / math.log(slope) if slope != 1.0 else math.inf


def _describe(activation: Activation, sw2: float, sb2: float, q: float, parted: float = 0.0) -> FixedPoint:
    if q == 0.0 or math.isinf(q):
        near = float(scan(activation).q[0 if q == 0.0 else -1])
        chi_q = sw2 * moments(activation, near).second_growth
        chi_1 = sw2 * slope_second_moment(activation, q if q == 0.0 else near)
        if q == 0.0:
            chi_q = chi_1
            status = "zero" if chi_q <= 1.0 else "unstable"
        else:
            status = "beyond" if chi_q < 1.0 or _sublinear(activation) else "diverges"
        return _point(q, chi_q, math.nan, chi_1, math.nan, status)
    m = moments(activation, q)
    chi_q, chi_1 = sw2 * m.second_growth, sw2 * m.slope_second
    status = "stable" if abs(chi_q) <= 1.0 else "unstable"
    if jumps(activation):
        status, chi_1 = "discontinuous", math.inf
    epsilon, chi_c = _correlation(activation, sw2, q, chi_1, parted)
    return _point(q, chi_q, epsilon, chi_1, chi_c, status)


def _sublinear(activation: Activation) -> bool:
    """Whether E[phi^2] grows more slowly than q at the end of the scan, so that every weight variance has a q*."""
    end = scan(activation)
    return bool(abs(end.growth[-1]) * end.q[-1] < 0.99 * end.second[-1])


def _point(q: float, chi_q: float, epsilon: float, chi_1: float, chi_c: float, status: str) -> FixedPoint:
    scales = depth_scale(chi_q), depth_scale(chi_c)
    return FixedPoint(q, chi_q, 1.0 - epsilon, epsilon, chi_1, chi_c, *scales, _phase(chi_1), status)


def _correlation(
    activation: Activation, sw2: float, q: float, chi_1: float, parted: float = 0.0
) -> tuple[float, float]:
    """1 - c* and the slope of the correlation map there; `parted`: v (1 - c_x), what inputs add to q (1 - c).

    The map is a power series of c with terms of one sign, hence convex on [0, 1]: c* = 1 unless chi_1 > 1 or inputs
    part, and then (1 - C(c)) / (1 - c) falls from chi_1 (or infinity) at c = 1 through 1 at c* exactly once; where C(0)
    is negative, as inputs of an obtuse angle can make it, c* is where it falls through 1 below c = 0.
    """
    if chi_1 <= 1.0 + 1e-12 and parted == 0.0:
        return 0.0, chi_1
    scale, read = sw2 * second_moment(activation, q) / q, parted / q

    def f(log_epsilon: float) -> tuple[float, float]:
        epsilon = min(math.exp(log_epsilon), 2.0)
        found = host_pair(activation, q, q, epsilon)
        mapped = scale * found.difference + read
        return math.log(mapped / epsilon), sw2 * found.slope_product * epsilon / mapped - 1.0

    at_one = host_pair(activation, q, q, 1.0)
    past = scale * at_one.difference + read - 1.0
    if abs(past) <= 1e-14 or (past > 0.0 and parted == 0.0):
        return 1.0, sw2 * at_one.slope_product
    if past > 0.0:
        low, high = 0.0, math.log(2.0)
    else:
        high = 0.0
        if math.isinf(chi_1):
            low = -60.0
        else:
            low = math.log(min(0.5, max(1e-3 * (chi_1 - 1.0), 0.5 * read)))
        while f(low)[0] < 0.0 and low > -600.0:
            low *= 2.0
    epsilon = min(math.exp(_log_root(f, low, high)), 2.0)
    return epsilon, sw2 * host_pair(activation, q, q, epsilon).slope_product


def _log_root(f: Callable[[float], tuple[float, float]], lo: float, hi: float) -> float:
    """The root of a falling function, by Newton steps kept in their bracket."""
    x = 0.5 * (lo + hi) if hi - lo < 4.0 else max(lo, hi - 1.0)
    for _ in range(100):
        value, slope = f(x)
        if value > 0.0:
            lo = x
        else:
            hi = x
        new = x - value / slope if math.isfinite(slope) and slope < 0.0 else math.nan
        if not lo < new < hi:
            new = 0.5 * (lo + hi)
        if abs(new - x) <= 1e-15 + 1e-13 * abs(value) or hi - lo <= 1e-15 * max(1.0, abs(lo)):
            return new
        if abs(value) <= 2e-15:
            return x
        x = new
    return x


def _homogeneous(
    activation: Activation, sw2: float, sb2: float, q0: float, ratio: float, parted: float = 0.0
) -> FixedPoint:
    """phi(a x) = a phi(x) for a > 0: the length map is the line sigma_w^2 ratio q + sigma_b^2."""
    slope = sw2 * ratio
    slope = 1.0 if abs(slope - 1.0) < 4e-15 else slope
    chi_1 = sw2 * moments(activation, 1.0).slope_second
    chi_1 = 1.0 if abs(chi_1 - 1.0) < 4e-15 else chi_1
    if slope == 1.0 and sb2 == 0.0:
        epsilon, chi_c = _correlation(activation, sw2, q0, chi_1)
        return _point(q0, slope, epsilon, chi_1, chi_c, "marginal")
    if slope >= 1.0:
        return _point(math.inf, slope, math.nan, chi_1, math.nan, "diverges")
    if sb2 == 0.0:
        return _point(0.0, slope, math.nan, chi_1, math.nan, "zero")
    q = sb2 / (1.0 - slope)
    epsilon, chi_c = _correlation(activation, sw2, q, chi_1, parted)
    return _point(q, slope, epsilon, chi_1, chi_c, "stable")
