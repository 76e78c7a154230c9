"""What theory says a network's signal and gradient do, layer by layer, as the record that simulations fill too.

Forward (z^l the pre-activations, l = 1 .. L; c = 1 - epsilon throughout in epsilon):

    q^1 = sigma_w^2 q + sigma_b^2,     q^(l+1) = sigma_w^2 E[phi^2] + sigma_b^2   at q^l,

and the correlation map beside it. Backward, for L = <r, f(x)> with r iid N(0, 1 / n_out), under gradient
independence (Schoenholz et al. 2017; Yang 2019 proves it for iid Gaussian weights):

    E[(dL/dz^l)^2] = (n_(l+1) / n_l) chi_1(q^l) E[(dL/dz^(l+1))^2],     1 / n_L at l = L,

and the same with chi at the layer's correlation for the product of two inputs' gradients. `_layers` holds the
recursion itself, with skips, normalization and dropout. Products over depth are sums of logarithms, so that depth
100,000 neither overflows nor vanishes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit.activations._panels import jumps
from jaxinit.meanfield._finite_width import finite_width, is_homogeneous
from jaxinit.meanfield._layers import Gradients, Layers, Rule, exact, gradients, log, tabulated
from jaxinit.meanfield._recurrent import over_time
from jaxinit.meanfield._units import dead_fraction, saturated_fraction, zero_fraction
from jaxinit.network import Network, require_fully_connected
from jaxinit.records import Propagation, Statistic, provenance

_EXACT_DEPTH = 64
_BAND_DEPTH = 10_000


def propagate(network: Network, *, q: float = 1.0, correlation: float = 0.5) -> Propagation:
    """Theory's prediction of a network at infinite width, for two inputs.

    Args:
        network: a `jaxinit.Network`, with skips, normalization or dropout or without. Weights given by an
            initializer enter by the variance of its law, layer by layer. A recurrent one (tied=True) with skips, whose
            states are correlated over time, has at most 1,000 steps.
        q: mean square of the inputs' entries.
        correlation: cosine of the two inputs, in [-1, 1]; both hold at every step of a network that reads an input at
            every step, and inputs of different steps are taken for orthogonal (which matters with skips only).

    Returns:
        `Propagation` with sites "1" .. "L" and two inputs, each figure exact (standard error 0, count 0):
        moments (means and excess kurtosis are 0: z is Gaussian), correlations, gradients, the norm of dL/dW and
        its ratio to that of W, and the shares of units with phi' = 0 on both inputs, with small phi' and with phi
        = 0. For homogeneous networks `extra["finite_width"]` holds the exact band at the network's own width
        (`finite_width`).

    Raises:
        TypeError: not a Network. ValueError: a convolutional network, an initializer of unknown law or mean, or phi
            jumps.

    Up to depth 64 every layer is integrated exactly (about 1e-12); beyond, tabulated integrals are iterated in a
    compiled scan (about 1e-8 a layer).

    References:
        Schoenholz et al. 2017; Yang & Schoenholz 2017, "Mean field residual networks: on the edge of chaos"; Chen,
        Pennington & Schoenholz 2018, "Dynamical isometry and a mean field theory of RNNs"; Yang 2020, "Tensor programs
        III: neural matrix laws" (one W for all steps).

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.meanfield import propagate
        >>> from jaxinit.network import Residual
        >>> he = propagate(ji.Network(50, 100, "relu", weight_variance=2.0))
        >>> [round(float(v), 6) for v in he.second_moment.mean[[0, 49], 0]]
        [2.0, 2.0]
        >>> skip = propagate(ji.Network(50, 100, "relu", weight_variance=2.0, residual=Residual(beta=50**-0.5)))
        >>> round(float(skip.second_moment.mean[49, 0]), 3)  # 2 (1 + 1/50)^49
        5.278
    """
    where = "propagate"
    require_fully_connected(where, network, driven=True)
    activation = network.activation
    if jumps(activation):
        raise checks.bad(
            where, "network", "of a continuous activation", activation.name, "Its gradients have none."
        )
    q = float(checks.number(where, "q", q, at_least=0.0))
    correlation = float(checks.number(where, "correlation", correlation, at_least=-1.0, at_most=1.0))
    rule = rule_of(network)
    if network.tied and network.residual is not None:
        layers, back = over_time(where, activation, rule, q, 1.0 - correlation)
    else:
        run = exact if network.depth <= _EXACT_DEPTH else tabulated
        layers = run(activation, rule, q, 1.0 - correlation)
        back = gradients(rule, layers)

    log_grad = back.log_total - np.log(np.asarray(network.widths, dtype=np.float64))
    seen = np.where(np.isnan(layers.log_q), np.nan, 0.0) if rule.normed else layers.log_q
    before = -math.inf if network.driven else log(q)
    log_norm = _log_weight_gradient(network, rule, layers, back, before, 1.0 - correlation)
    n_out = np.asarray([n for _, n in network.shapes], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        fields: dict[str, Any] = {
            "second_moment": _two(np.exp(layers.log_q)),
            "log_second_moment": _two(layers.log_q),
            "mean": np.zeros((network.depth, 2)),
            "kurtosis": np.zeros((network.depth, 2)),
            "correlation": (1.0 - layers.epsilon)[:, None],
            "one_minus_correlation": layers.epsilon[:, None],
            "dead_fraction": dead_fraction(activation, seen, layers.epsilon),
            "saturated_fraction": saturated_fraction(activation, seen),
            "zero_fraction": zero_fraction(activation, seen),
            "grad_second_moment": _two(np.exp(log_grad)),
            "log_grad_second_moment": _two(log_grad),
            "grad_correlation": back.cosine[:, None],
            "weight_grad_norm": np.exp(log_norm),
            "update_ratio": np.exp(log_norm - 0.5 * np.log(n_out * rule.weight_variance)),
        }
    statistics: dict[str, Any] = {k: Statistic.exact(v) for k, v in fields.items() if v is not None}
    extra = {}
    if q > 0.0 and network.depth <= _BAND_DEPTH and is_homogeneous(network):
        extra["finite_width"] = finite_width(network, q)
    return Propagation(
        "theory", tuple(str(i + 1) for i in range(network.depth)), 2, ((0, 1),),
        **statistics, extra=extra,
        config={
            "label": f"theory: {network.label}", "network": repr(network), "activation": activation.name,
            "depth": network.depth, "widths": list(network.widths), "q": q, "correlation": correlation,
        },
        provenance=provenance(),
    )  # fmt: skip


def _two(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, None], 2, axis=1)


def rule_of(network: Network) -> Rule:
    """The numbers of the recursion, of any canonical network."""
    if network.initializer is None:
        variances = [float(network.weight_variance)] * network.depth
    else:
        variances = [_variance(network, shape) for shape in network.shapes]
    skip = network.residual
    alpha, beta = (0.0, 1.0) if skip is None else (float(skip.alpha), float(skip.beta))
    return Rule(
        np.asarray(variances), float(network.bias_variance), alpha, beta, 1.0 - float(network.dropout),
        skip is not None and skip.order == "post", network.norm is not None,
        float(network.input_weight_variance) if network.driven else None,
    )  # fmt: skip


def _variance(network: Network, shape: tuple[int, int]) -> float:
    """n_in Var(W_ij) of a layer drawn by the network's initializer."""
    law = getattr(network.initializer, "law", lambda shape: None)(shape)
    if law is None or law.kind not in ("gaussian", "iid", "orthogonal"):
        raise checks.bad(
            "propagate", "network", "given by weight_variance, or by an initializer of independent entries of mean 0 "
            "or orthogonal ones", network.initializer, "For he_normal that is weight_variance=2.0.",
        )  # fmt: skip
    variance = float(law.stddev) ** 2
    return shape[0] * variance / max(shape) if law.kind == "orthogonal" else shape[0] * variance


def _log_weight_gradient(
    network: Network, rule: Rule, layers: Layers, back: Gradients, log_x: float, x_epsilon: float
) -> np.ndarray:
    """log |dL/dW^l|, from |dL/dW|^2 = sum_ab <h_a, h_b> <d_a, d_b>."""
    log_h = np.append(log_x, layers.log_h[:-1])
    h_cosine = 1.0 - np.append(x_epsilon, layers.h_epsilon[:-1])
    n_in = np.asarray([n for n, _ in network.shapes], dtype=np.float64)
    beta = np.where((np.arange(network.depth) == 0) | rule.post, 0.0, log(rule.beta))
    with np.errstate(divide="ignore", invalid="ignore"):
        joint = np.log(2.0 + 2.0 * h_cosine * back.cosine)
        return np.asarray(beta + 0.5 * (np.log(n_in) + log_h + back.log_total + joint))
