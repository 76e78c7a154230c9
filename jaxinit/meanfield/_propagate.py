"""The recursion over depth: what theory says a network's signal and gradient do, layer by layer.

Forward (z^l the pre-activations, l = 1 .. L; c = 1 - epsilon throughout in epsilon):

    q^1 = sigma_w^2 q + sigma_b^2,     q^(l+1) = sigma_w^2 E[phi^2] + sigma_b^2   at q^l,

and the correlation map beside it. Backward, for L = <r, f(x)> with r iid N(0, 1 / n_out), under gradient
independence (Schoenholz et al. 2017, eqs. 13-14; Yang 2019 proves it for iid Gaussian weights):

    E[(dL/dz^l)^2] = (n_(l+1) / n_l) chi_1(q^l) E[(dL/dz^(l+1))^2],     1 / n_L at l = L,

and the same with chi at the layer's correlation for the product of two inputs' gradients. Products over depth are
sums of logarithms, so that depth 100,000 neither overflows nor vanishes.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import checks
from jaxinit.activations import Activation
from jaxinit.activations._host import float64
from jaxinit.activations._panels import jumps
from jaxinit.meanfield._fixed_point import scan
from jaxinit.meanfield._maps import host_pair, next_epsilon, second_moment, slope_second_moment
from jaxinit.meanfield._table import Table, at_length, lengths, ratio, table
from jaxinit.network import Network
from jaxinit.records import Propagation, Statistic, provenance

_EXACT_DEPTH = 64
_PAIRED = (1e-8, 1e6)  # beyond, E[phi'(u) phi'(v)] no longer depends on q


def propagate(network: Network, *, q: float = 1.0, correlation: float = 0.5) -> Propagation:
    """Theory's prediction of a network at infinite width, for two inputs.

    Args:
        network: a `jaxinit.Network` whose weights are given by `weight_variance`.
        q: mean square of the inputs' entries.
        correlation: cosine of the two inputs, in [-1, 1].

    Returns:
        `Propagation` with sites "1" .. "L" and two inputs: `second_moment`, `log_second_moment`, `correlation`,
        `one_minus_correlation`, `grad_second_moment`, `log_grad_second_moment`, `grad_correlation`, each exact
        (standard error 0, count 0).

    Raises:
        TypeError: not a Network. ValueError: weights given by an initializer (pass weight_variance), or phi jumps.

    Up to depth 64 every layer is integrated exactly (about 1e-12); beyond, tabulated integrals are iterated in a
    compiled scan (about 1e-8 a layer).

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.meanfield import propagate
        >>> he = propagate(ji.Network(50, 100, "relu", weight_variance=2.0))
        >>> [round(float(v), 6) for v in he.second_moment.mean[[0, 49], 0]]
        [2.0, 2.0]
        >>> float(he.correlation.mean[49, 0]) > 0.97
        True
    """
    where = "propagate"
    if not isinstance(network, Network):
        raise checks.wrong_type(where, "network", "a jaxinit.Network", network)
    if network.weight_variance is None:
        raise checks.bad(
            where, "network", "given by weight_variance", network, "For he_normal pass weight_variance=2.0."
        )
    activation = network.activation
    if jumps(activation):
        raise checks.bad(
            where, "network", "of a continuous activation", activation.name, "Its gradients have none."
        )
    q = float(checks.number(where, "q", q, at_least=0.0))
    correlation = float(checks.number(where, "correlation", correlation, at_least=-1.0, at_most=1.0))
    sw2, sb2 = float(network.weight_variance), float(network.bias_variance)
    first = sw2 * q + sb2
    epsilon = sw2 * q * (1.0 - correlation) / first if first > 0.0 else math.nan
    run = _exact if network.depth <= _EXACT_DEPTH else _tabulated
    log_q, eps, log_chi, cosine = run(activation, network.depth, sw2, sb2, first, epsilon)

    widths = np.log(np.asarray(network.widths, dtype=np.float64))
    log_grad = np.append(np.cumsum(log_chi[:-1][::-1])[::-1], 0.0) - widths
    grad_correlation = np.append(np.cumprod(cosine[:-1][::-1])[::-1], 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        fields: dict[str, Any] = {
            "second_moment": _two(np.exp(log_q)),
            "log_second_moment": _two(log_q),
            "correlation": (1.0 - eps)[:, None],
            "one_minus_correlation": eps[:, None],
            "grad_second_moment": _two(np.exp(log_grad)),
            "log_grad_second_moment": _two(log_grad),
            "grad_correlation": grad_correlation[:, None],
        }
    statistics: dict[str, Any] = {name: Statistic.exact(value) for name, value in fields.items()}
    return Propagation(
        "theory", tuple(str(i + 1) for i in range(network.depth)), 2, ((0, 1),),
        **statistics,
        config={"label": f"theory: {network.label}", "q": q, "correlation": correlation, "depth": network.depth},
        provenance=provenance(),
    )  # fmt: skip


def _two(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, None], 2, axis=1)


def _exact(
    activation: Activation, depth: int, sw2: float, sb2: float, q: float, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """log q, 1 - c, log chi_1 and chi(c) / chi_1 of each layer, by exact integrals."""
    rows = []
    for _ in range(depth):
        chi = sw2 * slope_second_moment(activation, q) if math.isfinite(q) else math.nan
        slopes = chi
        if epsilon != 0.0 and q > 0.0 and math.isfinite(q):
            slopes = sw2 * host_pair(activation, q, q, epsilon).slope_product
        rows.append((_log(q), epsilon, _log(chi), slopes / chi if chi > 0.0 else math.nan))
        epsilon = next_epsilon(activation, epsilon, q, q, sw2, sb2) if math.isfinite(q) else math.nan
        q = sw2 * second_moment(activation, q) + sb2 if math.isfinite(q) else math.inf
    found = np.asarray(rows).T
    return found[0], found[1], found[2], found[3]


def _log(x: float) -> float:
    return math.log(x) if x > 0.0 else (-math.inf if x == 0.0 else math.nan)


def _tabulated(
    activation: Activation, depth: int, sw2: float, sb2: float, q: float, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same by tabulated integrals in compiled scans; all in logarithms."""
    grid = scan(activation)
    low, high = float(grid.q[0]), float(grid.q[-1])
    held = table(activation, low, high, pairs=False)
    logs = _log(sw2), _log(sb2)
    with float64():
        log_q, log_chi = (
            np.asarray(v)
            for v in _lengths_scan(held, math.log(low), math.log(high), *logs, _log(q), depth=depth)
        )
    seen = np.clip(log_q[np.isfinite(log_q)], math.log(max(low, _PAIRED[0])), math.log(min(high, _PAIRED[1])))
    if not seen.size:
        return log_q, np.full(depth, math.nan), log_chi, np.full(depth, math.nan)
    ends = float(seen.min()), float(seen.max())
    held = table(activation, math.exp(ends[0]), math.exp(ends[1]), negative=epsilon > 1.0)
    with float64():
        log_epsilon, cosine = (
            np.asarray(v) for v in _pairs_scan(held, *ends, logs[0], log_q, log_chi, _log(epsilon))
        )
    return log_q, np.exp(log_epsilon), log_chi, cosine


@functools.partial(jax.jit, static_argnames="depth")
def _lengths_scan(
    held: Table,
    low: jax.Array,
    high: jax.Array,
    log_sw2: jax.Array,
    log_sb2: jax.Array,
    log_q: jax.Array,
    *,
    depth: int,
) -> tuple[jax.Array, jax.Array]:
    """log q and log chi_1 of each layer. Beyond the table, E[phi^2] is the power of q it ends with."""

    def step(log_q: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        inside = jnp.clip(log_q, low, high)
        v, growth, slope = lengths(held, jnp.exp(inside))
        log_v = jnp.log(v) + growth * jnp.exp(inside) / v * (log_q - inside)
        return jnp.logaddexp(log_sw2 + log_v, log_sb2), (log_q, log_sw2 + jnp.log(slope))

    _, out = jax.lax.scan(step, jnp.asarray(log_q, dtype=float), None, length=depth)
    return out


@jax.jit
def _pairs_scan(
    held: Table, low: Any, high: Any, log_sw2: Any, log_q: Any, log_chi: Any, log_epsilon: Any
) -> tuple[jax.Array, jax.Array]:
    """log(1 - c) and chi(c) / chi_1 of each layer: 1 - c is multiplied by sigma_w^2 R q / Q(q)."""
    following = jnp.append(log_q[1:], log_q[-1])

    def step(log_epsilon: jax.Array, layer: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        here, after, chi = layer
        coefficients = at_length(held, jnp.exp(jnp.clip(here, low, high)))
        value, slopes = ratio(coefficients, jnp.minimum(jnp.exp(log_epsilon), 2.0))
        new = log_epsilon + log_sw2 + jnp.log(value) + here - after
        return new, (log_epsilon, slopes * jnp.exp(log_sw2 - chi))

    _, out = jax.lax.scan(step, jnp.asarray(log_epsilon, dtype=float), (log_q, following, log_chi))
    return out
