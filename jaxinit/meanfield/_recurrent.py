"""Recurrent networks with skips: one W and b for all steps, whose states at different steps are not independent.

Without skips, z_t = W phi(z_(t-1)) + U x_t + b, only states of one step ever meet, and figures are those of independent
layers (Chen, Pennington & Schoenholz 2018; Yang 2020, "Tensor programs III"). A skip adds states of several steps up,
and these are made of products with one W: for wide networks all states are Gaussian together, with covariances between
steps s, t (and between two inputs: every line below holds for both)

    pre     z_t = alpha z_(t-1) + beta g_t,
            <g_s g_t> = sigma_w^2 E[phi(z_(s-1)) phi(z_(t-1))] + sigma_b^2 + v [s = t]
    post    x_t = alpha x_(t-1) + beta phi(z_t),
            <z_s z_t> = sigma_w^2 <x_(s-1) x_(t-1)> + sigma_b^2 + v [s = t]

(v: what the input of a step adds; inputs of different steps are taken for orthogonal, and a first state for orthogonal
to what follows from it.) Backward W is met again as W^T, independent of the forward pass for a readout of its own (Yang
2020), but one matrix for all steps too: with d = dL/dz, e_t = W^T d_t, <e_s e_t> = sigma_w^2 <d_s d_t>,

    pre     d_t = alpha d_(t+1) + beta phi'(z_t) e_(t+1)
    post    d_t = beta phi'(z_t) g_t,   g_t = alpha g_(t+1) + e_(t+1),

where products of phi' and e over units are products of their means.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxinit._core import checks
from jaxinit.activations import Activation
from jaxinit.meanfield._dual import dual
from jaxinit.meanfield._layers import Gradients, Layers, Rule

_LONGEST = 1000


class _States(NamedTuple):
    """Means of products over units, (steps, steps): of one input at two steps, or of two inputs."""

    z: np.ndarray
    h: np.ndarray  # what W multiplies after that step
    slopes: np.ndarray  # E[phi' phi'], by z, with the masks of dropout


def over_time(
    where: str, activation: Activation, rule: Rule, q: float, epsilon: float
) -> tuple[Layers, Gradients]:
    """As `exact` and `gradients`, of a recurrent network with skips; 1 - c to about 1e-12."""
    steps = len(rule.weight_variance)
    if steps > _LONGEST:
        raise checks.bad(
            where, "network", f"of at most {_LONGEST} steps where it is recurrent and has skips", steps,
            "Every pair of steps has a covariance of its own.",
        )  # fmt: skip
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        one = _forward(activation, rule, q, 1.0, None)
        two = _forward(activation, rule, q, 1.0 - epsilon, np.diag(one.z))
        length, size, slope = (np.diag(v) for v in one)
        bare = slope * rule.keep * (length if rule.normed else 1.0)
        layers = Layers(
            np.log(length),
            1.0 - np.diag(two.z) / length,
            np.log(bare),
            np.diag(two.slopes) / (slope * rule.keep),
            np.log(size),
            1.0 - np.diag(two.h) / size,
        )
        total, cross = (np.diag(_backward(rule, states.slopes)) for states in (one, two))
        return layers, Gradients(np.log(total), cross / total)


def _forward(
    activation: Activation, rule: Rule, q: float, cosine: float, lengths: np.ndarray | None
) -> _States:
    """Of two inputs of this cosine, whose states have these `lengths`; None: of one input with itself."""
    steps, weight = len(rule.weight_variance), float(rule.weight_variance[0])
    z, h, slopes = (np.zeros((steps, steps)) for _ in range(3))
    first, read = (weight, 0.0) if rule.read is None else (0.0, rule.read)
    for t in range(steps):
        entering = np.full(t + 1, rule.bias_variance)
        entering[1:] += weight * h[:t, t - 1]
        entering[t] += (read + (0.0 if t else first)) * q * cosine
        if rule.post:
            z[: t + 1, t] = z[t, : t + 1] = entering
        else:
            _extend(z, entering, rule.alpha, rule.beta)
        own = np.diag(z) if lengths is None else lengths
        both = np.sqrt(own[: t + 1] * own[t])
        epsilon = np.where(both > 0.0, 1.0 - z[: t + 1, t] / both, 1.0)
        if lengths is None:
            epsilon[t] = 0.0
        seen = np.ones(t + 1) if rule.normed else own[: t + 1]
        products, turned = dual(activation, seen, np.full(t + 1, seen[t]), epsilon)
        if lengths is None:  # masks of one input at one step are the same
            products[t], turned[t] = products[t] / rule.keep, turned[t] / rule.keep
        turned = turned / both if rule.normed else turned
        slopes[: t + 1, t] = slopes[t, : t + 1] = turned
        if rule.post:
            _extend(h, products, rule.alpha, rule.beta)
        else:
            h[: t + 1, t] = h[t, : t + 1] = products
    return _States(z, h, slopes)


def _extend(sums: np.ndarray, added: np.ndarray, alpha: float, beta: float) -> None:
    """Products of s_t = alpha s_(t-1) + beta a_t, s_0 = a_0, from those of a_t with a_0 .. a_t: one more row."""
    t = len(added) - 1
    along, past = np.empty(t + 1), 0.0  # of a_t with s_0 .. s_t
    for i, value in enumerate(added.tolist()):
        past = along[i] = alpha * past + (beta if i else 1.0) * value
    if not t:
        sums[0, 0] = along[0]
        return
    sums[:t, t] = sums[t, :t] = alpha * sums[:t, t - 1] + beta * along[:t]
    sums[t, t] = alpha**2 * sums[t - 1, t - 1] + beta * (alpha * along[t - 1] + along[t])


def _backward(rule: Rule, slopes: np.ndarray) -> np.ndarray:
    """<d_s d_t> for |d_T| = 1, T the last step. Below, steps are counted from there."""
    steps, weight = len(slopes), float(rule.weight_variance[0])
    slopes = slopes[::-1, ::-1]
    d, stream = np.zeros((steps, steps)), np.zeros((steps, steps))
    d[0, 0] = 1.0
    branch = np.full(steps, rule.beta)
    branch[-1] = 1.0  # the first step has no skip
    for t in range(1, steps):
        if rule.post:
            _extend(stream, weight * d[:t, t - 1], rule.alpha, 1.0)
            found = branch[1 : t + 1] * branch[t] * slopes[1 : t + 1, t] * stream[:t, t - 1]
            d[1 : t + 1, t] = d[t, 1 : t + 1] = found
        else:
            added = np.append(0.0, weight * slopes[1 : t + 1, t] * d[:t, t - 1])
            _extend(d, added, rule.alpha, rule.beta)
    return d[::-1, ::-1]
