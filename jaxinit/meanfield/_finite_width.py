"""Exact finite-width laws of homogeneous networks: (leaky) ReLU and linear, Gaussian weights, no biases.

If phi(s x) = s phi(x) for s > 0, the length of a signal performs a multiplicative random walk. With
z^l = W^l h^(l-1), W_ij iid N(0, sigma_w^2 / n_(l-1)), and h = phi(z), each layer multiplies |h|^2 by an
independent copy of

    X = (sigma_w^2 / n_in) sum_{i=1}^{n_out} s_i^2 g_i^2,      g_i iid N(0, 1), s_i = slope of phi at g_i

(the direction of h does not matter: W is rotation invariant). The squared slopes are a^2 or 1 with probability
1/2, independent of g_i^2, so the Laplace transform of X is elementary and every moment follows:

    E exp(-t X) = [ (1 + 2 k a^2 t)^(-1/2) / 2 + (1 + 2 k t)^(-1/2) / 2 ]^n_out,     k = sigma_w^2 / n_in

The gradient walks likewise from the output down: (W^T d) * phi'(z) has, given d, squared length |d|^2 X with
n_out replaced by n_in terms, because the signs of z may be replaced by independent coins (Hanin & Nica 2020,
"Products of many large random matrices and gradients in deep neural networks").
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxinit._core import checks
from jaxinit.network import Network, require_fully_connected
from jaxinit.records import Record, saved

# Trapezoid rule in u = log t: the integrands are analytic and fall at least like exp(-|u| / 2) on both sides, so
# this range and step leave less than 1e-12.
_U = np.linspace(-60.0, 80.0, 7001)
_STEP = _U[1] - _U[0]


@saved
@dataclasses.dataclass(frozen=True, eq=False)
class FiniteWidth(Record):
    """The exact law, layer by layer, of a homogeneous network's second moments q_l = mean(z^2) over draws.

    Arrays have one entry a layer 1 .. depth. `mean` and `std` are of q_l over all draws; `log_mean` and
    `log_std` of log q_l over the draws whose layer is not dead, which have probability 1 - `dead`; the `grad_`
    fields are those of the gradient second moment of L = <r, f(x)>, r iid N(0, 1/n_out). exp(log_mean) is the
    typical value and exp(log_mean +- log_std) the one-sigma band of a single network.
    """

    mean: np.ndarray
    std: np.ndarray
    log_mean: np.ndarray
    log_std: np.ndarray
    dead: np.ndarray
    grad_mean: np.ndarray
    grad_std: np.ndarray
    grad_log_mean: np.ndarray
    grad_log_std: np.ndarray

    def rows(self) -> list[dict[str, Any]]:
        """One dict a layer."""
        names = [f.name for f in dataclasses.fields(self)]
        return [
            {"site": str(l + 1), **{n: float(getattr(self, n)[l]) for n in names}}
            for l in range(len(self.mean))
        ]

    def table(self) -> Any:
        """One row a layer: typical second moment with its one-sigma band, mean, probability of death."""
        from rich.table import Table

        table = Table(title="second moment at finite width (exact)", title_justify="left")
        for title in ("site", "typical", "one-sigma band", "mean", "dead"):
            table.add_column(title, justify="right")
        for row in self.rows():
            low, mid, high = (np.exp(row["log_mean"] + k * row["log_std"]) for k in (-1, 0, 1))
            table.add_row(
                row["site"],
                f"{mid:.3g}",
                f"{low:.3g} .. {high:.3g}",
                f"{row['mean']:.3g}",
                f"{row['dead']:.2g}",
            )
        return table


def slopes(activation: Any) -> tuple[float, float] | None:
    """(slope below 0, slope above 0) if phi is positively homogeneous, else None."""
    x = np.asarray([0.5, 1.0, 7.0], np.float64)
    up, down = (np.asarray(activation(s * x.astype(np.float32)), np.float64) / x for s in (1.0, -1.0))
    if np.ptp(up) > 1e-6 * np.abs(up).max() or np.ptp(down) > 1e-6 * max(np.abs(down).max(), 1e-30):
        return None
    return float(-down[1]), float(up[1])


def moment(p: int, n: int, variance: float, below: float = 0.0, above: float = 1.0) -> float:
    """E[X^p] for one layer with n terms and total weight `variance`: X = (variance / n) sum s_i^2 g_i^2.

    From the cumulants of X, kappa_m = n c_m: with moments of one term E[(s^2 g^2)^m] =
    (2m - 1)!! (below^(2m) + above^(2m)) / 2. For He-initialized ReLU E[X^2] = 1 + 5/n.

    Example:
        >>> from jaxinit.meanfield import _finite_width
        >>> round(_finite_width.moment(2, 10, 2.0), 12)
        1.5
    """
    term = [1.0]
    for m in range(1, p + 1):
        odd = float(np.prod(np.arange(1, 2 * m, 2)))
        term.append(odd * (below ** (2 * m) + above ** (2 * m)) / 2)
    # Moments of a sum of n iid terms, by the recursion between moments and cumulants.
    binomial = np.ones((p + 1, p + 1))
    for i in range(1, p + 1):
        for j in range(1, i):
            binomial[i, j] = binomial[i - 1, j - 1] + binomial[i - 1, j]
    cumulant, total = [0.0], [1.0]
    for m in range(1, p + 1):
        cumulant.append(
            term[m] - sum(binomial[m - 1, k - 1] * cumulant[k] * term[m - k] for k in range(1, m))
        )
    for m in range(1, p + 1):
        total.append(sum(binomial[m - 1, k - 1] * n * cumulant[k] * total[m - k] for k in range(1, m + 1)))
    return float(total[p]) * (variance / n) ** p


def log_moments(n: int, variance: float, below: float = 0.0, above: float = 1.0) -> tuple[float, float]:
    """Mean and variance of log X for one layer, given that X > 0.

    With M the Laplace transform of X and u = log t (Frullani's integral and its first moment):

        E log X = int (exp(-e^u) - M(e^u)) du,    int u (exp(-e^u) - M(e^u)) du = -gamma E log X - E log^2 X / 2
    """
    t = np.exp(_U)
    below, above = abs(below), abs(above)
    # X / variance has mean about 1: its logarithm is shifted back at the end.
    log_m = n * np.log(0.5 * (1 + 2 * below**2 * t / n) ** -0.5 + 0.5 * (1 + 2 * above**2 * t / n) ** -0.5)
    dead = _dead(n, below, above)
    alive = (np.exp(log_m) - dead) / (1 - dead)
    difference = np.exp(-t) - alive
    weight = np.full_like(_U, _STEP)
    weight[[0, -1]] /= 2
    first = float(weight @ difference)
    second = -2 * (float(weight @ (_U * difference)) + np.euler_gamma * first)
    return first + float(np.log(variance)), second - first**2


def _dead(n: int, below: float, above: float) -> float:
    """Probability that every term has slope 0."""
    return float((0.5 * (below == 0) + 0.5 * (above == 0)) ** n)


def is_homogeneous(network: Network) -> bool:
    """Whether `finite_width` holds for the network."""
    plain = network.plain and network.initializer is None and network.ensemble == "gaussian"
    if not plain or float(network.bias_variance) != 0.0 or float(network.weight_variance) == 0.0:
        return False
    return slopes(network.activation) is not None


def finite_width(network: Network, q: float = 1.0) -> FiniteWidth:
    """The exact finite-width law of the second moments of a homogeneous network, forward and backward.

    Arguments:
        network: Gaussian weights given by `weight_variance`, no biases, activation relu, leaky_relu, prelu or
            linear (anything with phi(s x) = s phi(x) for s > 0); any widths.
        q: mean square of the input's entries.

    Returns:
        A FiniteWidth. For He-initialized ReLU networks of width n, E[q_L^2] / E[q_L]^2 grows by 1 + 5/n a
        layer and the typical value falls as exp(-5L/2n), roughly: depth over width rules (Hanin 2018).

    Raises:
        ValueError: the network is not of that kind.

    Example:
        >>> import jaxinit as ji
        >>> from jaxinit.meanfield import finite_width
        >>> law = finite_width(ji.Network(50, 100, "relu", weight_variance=2.0))
        >>> [round(float(x), 3) for x in (law.mean[-1], law.std[-1], law.log_mean[-1], law.log_std[-1])]
        [2.0, 6.369, -0.563, 1.602]
    """
    where = "finite_width"
    require_fully_connected(where, network)
    q = checks.number(where, "q", q, above=0.0)
    slope = slopes(network.activation)
    if slope is None or not is_homogeneous(network):
        raise checks.bad(
            where, "network", "homogeneous: relu, leaky_relu, prelu or linear, Gaussian weights of positive "
            "weight_variance, no biases, skips, norm, dropout or tied weights", network,
            "For other networks use meanfield.propagate (infinite width) or simulate.",
        )  # fmt: skip
    variance = float(network.weight_variance)
    fan_in = np.asarray([s[0] for s in network.shapes])
    fan_out = np.asarray([s[1] for s in network.shapes])

    # Per layer l: a hidden step multiplies |h|^2 / n by Y = (n_out terms, variance sigma_w^2), and the reading
    # q_l = |z^l|^2 / n_l multiplies by a chi-square: the same with slopes 1.
    hidden = np.asarray([_layer(int(n), variance, *slope) for n in fan_out])
    read = np.asarray([_layer(int(n), variance, 1.0, 1.0) for n in fan_out])
    walk = np.cumsum(np.vstack([np.zeros(4), hidden[:-1, :4]]), axis=0) + read[:, :4]
    walk[:, [0, 2]] += np.log(q)
    alive = np.cumprod(np.append(1.0, 1.0 - hidden[:-1, 4]))

    # The gradient: at the output r itself, |r|^2 / n_out with r iid N(0, 1/n_out); then per layer n_in terms:
    # |d^(l-1)|^2 / n_(l-1) = (|d^l|^2 / n_l) (n_l / n_in) X.
    steps = np.asarray([_layer(int(n), variance, *slope)[:4] for n in fan_in])
    steps[:, [0, 2]] += np.log(fan_out / fan_in)[:, None]
    last = int(fan_out[-1])
    back = np.asarray([*steps[1:], _layer(last, 1.0 / last, 1.0, 1.0)[:4]])
    back = np.cumsum(back[::-1], axis=0)[::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std, log_mean, log_std = _figures(walk)
        g_mean, g_std, g_log_mean, g_log_std = _figures(back)
    return FiniteWidth(mean, std, log_mean, log_std, 1.0 - alive, g_mean, g_std, g_log_mean, g_log_std)


def _figures(walk: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation, and those of the logarithm, from a sum of layers' figures."""
    mean = np.exp(walk[:, 0])
    return mean, mean * np.sqrt(np.expm1(walk[:, 1])), walk[:, 2], np.sqrt(walk[:, 3])


@functools.lru_cache(maxsize=1024)
def _layer(n: int, variance: float, below: float, above: float) -> tuple[float, float, float, float, float]:
    """(log E X, log E X^2 / E[X]^2, E log X, Var log X given X > 0, P(X = 0)) of one layer."""
    below, above = abs(below), abs(above)
    if below == above == 0.0:
        return -np.inf, 0.0, -np.inf, 0.0, 1.0
    first, second = (moment(p, n, variance, below, above) for p in (1, 2))
    return (
        float(np.log(first)), float(np.log(second / first**2)),
        *log_moments(n, variance, below, above), _dead(n, below, above),
    )  # fmt: skip
