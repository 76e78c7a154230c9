"""The recursion over layers of any canonical network, two inputs of equal length, by exact integrals or by tables.

Lengths and gaps, never correlations, are carried: with k the covariance of two signals, gap = length - k, so that
1 - c = gap / length keeps its digits. Let s be the variance phi sees (q, or 1 behind a normalization), and

    branch = E[phi^2] / keep,     branch gap = E[phi^2] (1 - keep) / keep + E[(phi(u) - phi(v))^2] / 2

for a keep rate `keep` (dropout draws its masks per input, so that even equal inputs part: Schoenholz et al.
2017). With skips alpha, beta (none: alpha = 0, beta = 1), "pre":

    q'   = alpha^2 q   + beta^2 (sigma_w^2 branch + sigma_b^2)
    gap' = alpha^2 gap + beta^2 sigma_w^2 branch gap

and "post", where the stream x = alpha x + beta phi(z) has unit mean m, and z is independent of the x before it:

    p'   = alpha^2 p   + 2 alpha beta m E[phi] + beta^2 branch,      m' = alpha m + beta E[phi],
    gap' = alpha^2 gap + beta^2 branch gap,                          q' = sigma_w^2 p' + sigma_b^2

(Yang & Schoenholz 2017, "Mean field residual networks: on the edge of chaos"). What a recurrent network reads at every
step adds v to sigma_b^2, and v (1 - c_x) to sigma_w^2 times a gap (Chen, Pennington & Schoenholz 2018); it starts from
h = 0.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.activations import Activation, moments
from jaxinit.activations._host import float64
from jaxinit.meanfield._fixed_point import scan
from jaxinit.meanfield._maps import host_pair, second_moment, slope_second_moment, value_at_zero
from jaxinit.meanfield._table import Table, at_length, lengths, mean_of, ratio, table

_PAIRED = (1e-8, 1e6)  # beyond, E[phi'(u) phi'(v)] no longer depends on q


class Rule(NamedTuple):
    """What a layer does; `weight_variance` has one entry a layer. A plain network is "pre" with alpha 0, beta 1.

    `read`: sigma_u^2 of a network that reads an input at every step, without skips here; None of one that has its input
    before the first.
    """

    weight_variance: np.ndarray
    bias_variance: float
    alpha: float = 0.0
    beta: float = 1.0
    keep: float = 1.0
    post: bool = False
    normed: bool = False
    read: float | None = None


class Layers(NamedTuple):
    """Layer by layer, one array each: of the pre-activations z^l, of phi' there, and of h^l.

    Attributes:
        log_q: log of the mean square of z.
        epsilon: 1 - c of the two inputs' z.
        log_slope: log E[phi'^2].
        slopes: E[phi'(u) phi'(v)] / E[phi'^2].
        log_h, h_epsilon: log mean square of h, which the next layer's weights multiply, and 1 - its cosine.
    """

    log_q: np.ndarray
    epsilon: np.ndarray
    log_slope: np.ndarray
    slopes: np.ndarray
    log_h: np.ndarray
    h_epsilon: np.ndarray


def log(x: float) -> float:
    """log x, -inf at 0 and nan below."""
    return math.log(x) if x > 0.0 else (-math.inf if x == 0.0 else math.nan)


def exact(activation: Activation, rule: Rule, q: float, epsilon: float) -> Layers:
    """By exact integrals, from inputs of mean square q and 1 - cosine epsilon."""
    weights, sb2 = rule.weight_variance.tolist(), rule.bias_variance
    stream, mean, stream_gap = q, 0.0, q * epsilon
    length, gap, read_gap = weights[0] * q + sb2, weights[0] * q * epsilon, 0.0
    if rule.read is not None:
        sb2, read_gap = sb2 + rule.read * q, rule.read * q * epsilon
        length, gap = sb2, read_gap
    rows = []
    for l in range(len(weights)):
        eps = gap / length if length > 0.0 else math.nan
        s = (1.0 if length > 0.0 else math.nan) if rule.normed else length
        second, slope, slopes, difference = _integrals(activation, s, eps)
        branch = second / rule.keep
        branch_gap = second * ((1.0 - rule.keep) / rule.keep + difference)
        following = weights[min(l + 1, len(weights) - 1)]
        a, b = (rule.alpha, rule.beta) if l or not rule.post else (0.0, 1.0)
        if rule.post:
            mu = 0.0
            if a or rule.alpha:
                mu = moments(activation, s).mean if 0.0 < s < math.inf else value_at_zero(activation)
            stream = a * a * stream + 2.0 * a * b * mean * mu + b * b * branch
            stream_gap = a * a * stream_gap + b * b * branch_gap
            mean = a * mean + b * mu
            h, h_gap = stream, stream_gap
            new = following * h + sb2, following * h_gap
        else:
            h, h_gap = branch, branch_gap
            new = (
                (a * a * length if a else 0.0) + b * b * (following * h + sb2),
                (a * a * gap if a else 0.0) + b * b * (following * h_gap + read_gap),
            )
        rows.append((log(length), eps, log(slope), slopes, log(h), h_gap / h if h > 0.0 else math.nan))
        length, gap = new
    return Layers(*np.asarray(rows).T)


def _integrals(activation: Activation, s: float, epsilon: float) -> tuple[float, float, float, float]:
    """E[phi^2], E[phi'^2], E[phi' phi'] / E[phi'^2] and 1 - cosine of phi."""
    if not math.isfinite(s):
        return s, math.nan, math.nan, math.nan
    second, slope = second_moment(activation, s), slope_second_moment(activation, s)
    if epsilon == 0.0 or s == 0.0:
        return second, slope, 1.0 if slope > 0.0 else math.nan, 0.0
    if not math.isfinite(epsilon):
        return second, slope, math.nan, math.nan
    found = host_pair(activation, s, s, min(epsilon, 2.0))
    return (
        second,
        slope,
        found.slope_product / slope if slope > 0.0 else math.nan,
        (found.difference if second > 0.0 else 0.0),
    )


def tabulated(activation: Activation, rule: Rule, q: float, epsilon: float) -> Layers:
    """The same by tabulated integrals in compiled scans, all in logarithms: depth 100,000 takes a second."""
    grid = scan(activation)
    low, high = (1.0, 1.0) if rule.normed else (float(grid.q[0]), float(grid.q[-1]))
    held = table(activation, low, high, pairs=False)
    depth = len(rule.weight_variance)
    with np.errstate(divide="ignore"):
        weights = np.log(rule.weight_variance)
    following = np.append(weights[1:], weights[-1:])
    factors = np.full((depth, 2), [2.0 * log(rule.alpha), 2.0 * log(rule.beta)])
    if rule.post:
        factors[0] = -math.inf, 0.0
    before, added, read_gap = log(q), rule.bias_variance, -math.inf
    if rule.read is not None:
        before, added, read_gap = -math.inf, added + rule.read * q, log(rule.read * q * epsilon)
    first = float(np.logaddexp(weights[0] + before, log(added)))
    noise = log((1.0 - rule.keep) / rule.keep)
    kind = {"post": rule.post, "normed": rule.normed}
    with float64():
        log_q, log_v, log_slope, log_h = (
            np.asarray(v)
            for v in _lengths_scan(
                held, log(low), log(high), log(added), log(rule.keep), (first, before),
                (following, factors), **kind,
            )
        )  # fmt: skip
    log_s = np.where(np.isneginf(log_q), math.nan, 0.0) if rule.normed else log_q
    bottom, top = (0.0, 0.0) if rule.normed else (log(max(low, _PAIRED[0])), log(min(high, _PAIRED[1])))
    seen = np.clip(log_s[np.isfinite(log_s)], bottom, top)
    if not seen.size:
        undefined = np.full(depth, math.nan)
        return Layers(log_q, undefined, log_slope, undefined, log_h, undefined)
    ends = float(seen.min()), float(seen.max())
    held = table(activation, math.exp(ends[0]), math.exp(ends[1]), negative=epsilon > 1.0)
    gap = read_gap if rule.read is not None else log(q) + log(epsilon) + (0.0 if rule.post else weights[0])
    now = weights if rule.post else np.zeros(depth)
    scale = np.zeros(depth) if rule.post else following
    with float64():
        log_epsilon, products, log_h_gap = (
            np.asarray(v)
            for v in _pairs_scan(
                held,
                *ends,
                noise,
                read_gap,
                gap,
                (log_q, log_s, log_v, factors, now, scale),
                post=rule.post,
            )
        )
    with np.errstate(over="ignore", invalid="ignore"):
        slopes = products * np.exp(-log_slope)
        return Layers(log_q, np.exp(log_epsilon), log_slope, slopes, log_h, np.exp(log_h_gap - log_h))


@functools.partial(jax.jit, static_argnames=("post", "normed"))
def _lengths_scan(
    held: Table,
    low: Any,
    high: Any,
    log_sb2: Any,
    log_keep: Any,
    start: Any,
    xs: Any,
    *,
    post: bool,
    normed: bool,
) -> Any:
    """log of q, E[phi^2], E[phi'^2] and E[h^2] of each layer. Beyond the table, E[phi^2] is the power of q it
    ends with."""

    def step(carry: Any, x: Any) -> Any:
        log_q, log_p, tilt = carry
        log_sw2, (log_a2, log_b2) = x
        log_s = jnp.where(jnp.isneginf(log_q), jnp.nan, 0.0) if normed else log_q  # nothing has no direction
        inside = jnp.clip(log_s, low, high)
        v, growth, slope = lengths(held, jnp.exp(inside))
        log_v = jnp.log(v) + growth * jnp.exp(inside) / v * (log_s - inside)
        branch = log_v - log_keep
        if post:  # tilt: mean of the stream over its root mean square
            own, other = log_a2 + log_p, log_b2 + branch
            top = jnp.logaddexp(own, other)
            shift = jnp.where(jnp.isfinite(top), top, 0.0)
            mu = mean_of(held, jnp.exp(inside)) / jnp.sqrt(v) * jnp.exp(0.5 * log_keep)
            means = tilt * jnp.exp(0.5 * (own - shift)), mu * jnp.exp(0.5 * (other - shift))
            cross = 1.0 + 2.0 * means[0] * means[1]
            log_h, tilt = top + jnp.log(cross), (means[0] + means[1]) / jnp.sqrt(cross)
            new = jnp.logaddexp(log_sw2 + log_h, log_sb2)
        else:
            log_h = branch
            new = jnp.logaddexp(log_a2 + log_q, log_b2 + jnp.logaddexp(log_sw2 + log_h, log_sb2))
        return (new, log_h, tilt), (log_q, log_v, jnp.log(slope), log_h)

    first, log_p = (jnp.asarray(v, dtype=float) for v in start)
    return jax.lax.scan(step, (first, log_p, jnp.zeros_like(first)), xs)[1]


@functools.partial(jax.jit, static_argnames="post")
def _pairs_scan(
    held: Table, low: Any, high: Any, noise: Any, read_gap: Any, log_gap: Any, xs: Any, *, post: bool
) -> Any:
    """log(1 - c), E[phi' phi'] and log of the gap of h, of each layer."""

    def step(log_gap: Any, x: Any) -> Any:
        log_q, log_s, log_v, (log_a2, log_b2), now, scale = x
        log_epsilon = now + log_gap - log_q
        value, products = ratio(
            at_length(held, jnp.exp(jnp.clip(log_s, low, high))), jnp.minimum(jnp.exp(log_epsilon), 2.0)
        )
        branch = jnp.logaddexp(log_v + noise, jnp.log(value) + log_s + log_epsilon)
        new = jnp.logaddexp(log_a2 + log_gap, log_b2 + jnp.logaddexp(scale + branch, read_gap))
        return new, (log_epsilon, products, new if post else branch)

    return jax.lax.scan(step, jnp.asarray(log_gap, dtype=float), xs)[1]


class Gradients(NamedTuple):
    """log of |dL/dz^l|^2 for |dL/dz^L| = 1, and the cosine of two inputs' gradients, layer by layer."""

    log_total: np.ndarray
    cosine: np.ndarray


def gradients(rule: Rule, layers: Layers) -> Gradients:
    """Back through the layers under gradient independence (Schoenholz et al. 2017).

        "pre":   |d^l|^2 = (alpha^2 + beta^2 chi^l) |d^(l+1)|^2,    chi = sigma_w^2 E[phi'^2] / keep (/ q if normed)
        "post":  |g^l|^2 = alpha^2 |g^(l+1)|^2 + sigma_w^2 |d^(l+1)|^2,  |d^l|^2 = beta^2 E[phi'^2] / keep |g^l|^2

    with d = dL/dz and g = dL/dx of the stream. Products of two inputs' gradients take E[phi' phi'], not divided by
    keep: their masks are independent.
    """
    depth = len(layers.log_q)
    local = layers.log_slope - log(rule.keep) - (layers.log_q if rule.normed else 0.0)
    turn = rule.keep * layers.slopes
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.log(rule.weight_variance)
        if not rule.post:
            skip = 2.0 * log(rule.alpha)
            branch = 2.0 * log(rule.beta) + weights[1:] + local[:-1]
            factor = np.logaddexp(skip, branch)
            cosine = np.exp(skip - factor) + np.exp(branch - factor) * turn[:-1]
            total = np.append(np.cumsum(factor[::-1])[::-1], 0.0)
            return Gradients(total, np.append(np.cumprod(cosine[::-1])[::-1], 1.0))
        total, cosine = np.zeros(depth), np.ones(depth)
        stream, stream_cosine = -math.inf, 0.0
        for l in range(depth - 1, 0, -1):
            skip, branch = 2.0 * log(rule.alpha) + stream, weights[l] + total[l]
            stream = float(np.logaddexp(skip, branch))
            stream_cosine = math.exp(skip - stream) * stream_cosine + math.exp(branch - stream) * cosine[l]
            total[l - 1] = (2.0 * log(rule.beta) if l > 1 else 0.0) + local[l - 1] + stream
            cosine[l - 1] = turn[l - 1] * stream_cosine
        return Gradients(total, cosine)
