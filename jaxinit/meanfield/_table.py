"""An activation's maps as a table: one-time exact integrals, then polynomials a compiled program can afford.

The moments of an activation depend on q alone, and E[(phi(u) - phi(v))^2] on q and 1 - c; the variances of weights
and biases enter trivially. So a phase diagram of ten thousand points, or a recursion of a hundred thousand layers,
needs the same few thousand integrals. They are interpolated in log q (panels of a factor 4) and in
t = sqrt(1 - c), in which they are analytic, kinks or not, by Chebyshev polynomials.

    V(q) = E[phi^2],   X(q) = E[phi'^2],   R(q, t) = E[(phi(u) - phi(v))^2] / (2 q t^2)
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.activations import Activation, moments
from jaxinit.meanfield._fixed_point import _homogeneity
from jaxinit.meanfield._maps import host_pair
from jaxinit.meanfield._pairs import mehler_difference

_WIDTH = math.log(4.0)
_NODES_Q = 16
_NODES_T = 32  # on each of t in (0, 1] and (1, sqrt(2)]
_DEGREES = (150, 900)  # of Mehler's series, tried in turn


def _chebyshev(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in (-1, 1), and the matrix from values there to Chebyshev coefficients."""
    angles = np.pi * (np.arange(count) + 0.5) / count
    matrix = 2.0 / count * np.cos(np.arange(count)[:, None] * angles[None, :])
    matrix[0] *= 0.5
    return np.cos(angles), matrix


class Table(NamedTuple):
    """Chebyshev coefficients on consecutive panels in log q; a pytree of arrays, an argument of compiled programs.

    Attributes:
        start: log q at the left end of the first panel.
        lengths: (panels, 4, nodes_q), of V, its derivative, X and E[phi].
        pairs: (panels, 2, nodes_q, nodes_t), of R, for t in [0, 1] and in [1, sqrt 2]; one panel of zeros if
            the table holds lengths only.
    """

    start: Any
    lengths: Any
    pairs: Any


def panel_of(q: float) -> int:
    """The number of the panel in log q that holds q: panel 0 begins at q = 1."""
    return math.floor(math.log(q) / _WIDTH)


@functools.lru_cache(maxsize=4096)
def _length_panel(activation: Activation, panel: int) -> np.ndarray:
    nodes, project = _chebyshev(_NODES_Q)
    q = np.exp(_WIDTH * (panel + 0.5 * (nodes + 1.0)))
    found = [moments(activation, v) for v in q.tolist()]
    with np.errstate(invalid="ignore"):  # moments that are inf make a panel of nan
        second, slope, mean = np.asarray([(m.second, m.slope_second, m.mean) for m in found]).T @ project.T
        return np.stack([second, _derivative(_NODES_Q) @ second, slope, mean])


@functools.lru_cache(maxsize=512)
def _pair_panel(activation: Activation, panel: int, negative: bool) -> np.ndarray:
    if panel and _homogeneity(activation) is not None:
        return _pair_panel(activation, 0, negative)
    nodes, project = _chebyshev(_NODES_Q)
    places, project_t = _chebyshev(_NODES_T)
    t = 0.5 * (places + 1.0)
    halves = [t, 1.0 + (math.sqrt(2.0) - 1.0) * t] if negative else [t]
    out = np.zeros((2, _NODES_Q, _NODES_T))
    q = np.exp(_WIDTH * (panel + 0.5 * (nodes + 1.0))).tolist()
    if _homogeneity(activation) is not None:  # R does not depend on q
        q = [1.0]
    values = np.stack([[_ratios(activation, v, half) for half in halves] for v in q], axis=1)
    values = np.broadcast_to(values, (len(halves), _NODES_Q, _NODES_T))
    out[: len(halves)] = np.einsum("aq,hqt,bt->hab", project, values, project_t)
    return out


def _ratios(activation: Activation, q: float, t: np.ndarray) -> np.ndarray:
    """R(q, t): by Mehler's series where its remainder vanishes, else by exact integrals in the plane."""
    epsilon = t * t
    for degree in _DEGREES:
        difference, missed = mehler_difference(activation, q, epsilon, degree)
        remainder = (missed - 1e-14) * np.abs(1.0 - epsilon) ** degree / epsilon
        rough = remainder > 1e-11
        if not rough.any():
            break
    second = moments(activation, q).second
    exact = [host_pair(activation, q, q, e).difference * second for e in epsilon[rough].tolist()]
    difference[rough] = exact
    return difference / (q * epsilon)


def table(
    activation: Activation, low: float, high: float, pairs: bool = True, negative: bool = False
) -> Table:
    """The table of an activation for q in [low, high].

    Args:
        activation: an Activation.
        low, high: the range of q, positive.
        pairs: whether to hold R.
        negative: whether R is wanted for negative correlations too.
    """
    first, last = panel_of(low), panel_of(high)
    panels = range(first, last + 1)
    lengths = np.stack([_length_panel(activation, p) for p in panels])
    if pairs:
        held = np.stack([_pair_panel(activation, p, negative) for p in panels])
    else:
        held = np.zeros((1, 2, _NODES_Q, _NODES_T))
    return Table(np.float64(first * _WIDTH), lengths, held)


def _basis(x: jax.Array, count: int) -> jax.Array:
    """Chebyshev polynomials T_0 .. T_(count-1) at x in [-1, 1]."""
    return jnp.cos(jnp.arange(count, dtype=x.dtype) * jnp.arccos(jnp.clip(x, -1.0, 1.0)))


@functools.cache
def _derivative(count: int) -> np.ndarray:
    """The matrix from Chebyshev coefficients to those of the derivative."""
    columns = [np.polynomial.chebyshev.chebder(row) for row in np.eye(count)[1:]]
    matrix = np.zeros((count, count))
    for n, column in enumerate(columns, start=1):
        matrix[: len(column), n] = column
    return matrix


def _place(held: Table, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The panel of q and its place in it, in [-1, 1]; beyond the ends, the nearest panel."""
    position = (jnp.log(q) - held.start) / _WIDTH
    panel = jnp.clip(jnp.floor(position), 0, held.lengths.shape[0] - 1)
    return panel.astype(int), 2.0 * (position - panel) - 1.0


def lengths(held: Table, q: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """V(q), dV/dq and X(q) of a scalar q > 0."""
    panel, x = _place(held, q)
    v, growth, slope = held.lengths[panel, :3] @ _basis(x, _NODES_Q)
    return v, growth * 2.0 / (_WIDTH * q), slope


def mean_of(held: Table, q: jax.Array) -> jax.Array:
    """E[phi] at a scalar q > 0."""
    panel, x = _place(held, q)
    return held.lengths[panel, 3] @ _basis(x, _NODES_Q)


def length_tails(held: Table, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the series of V and of X leave out near q, relative to them: the size of their last coefficients."""
    panel, _ = _place(held, q)
    second, _, slope, _ = held.lengths[panel]

    def tail(series: jax.Array) -> jax.Array:
        size = jnp.abs(series)
        return size[-2:].sum() / jnp.maximum(size[0], jnp.finfo(series.dtype).tiny)

    return tail(second), tail(slope)


def pair_tail(held: Table, q: jax.Array) -> jax.Array:
    """What the series of R leaves out near q, for correlations in [0, 1]."""
    panel, _ = _place(held, q)
    size = jnp.abs(held.pairs[panel, 0])
    return size[-2:, :].sum() + size[:, -2:].sum()


def at_length(held: Table, q: jax.Array) -> jax.Array:
    """Coefficients in t of R(q, .) and of its derivative, shape (2 halves, 2, nodes_t), at a scalar q > 0."""
    panel, x = _place(held, q)
    values = jnp.einsum("hat,a->ht", held.pairs[panel], _basis(x, _NODES_Q))
    return jnp.stack([values, values @ _derivative(_NODES_T).T], axis=1)


def ratio(coefficients: jax.Array, epsilon: jax.Array) -> tuple[jax.Array, jax.Array]:
    """R and E[phi'(u) phi'(v)] at 1 - c = epsilon in [0, 2], from `at_length`.

    Since d/d epsilon of q epsilon R is q E[phi' phi'], the second is R + t/2 dR/dt.
    """
    t = jnp.sqrt(epsilon)
    beyond = (epsilon > 1.0).astype(int)
    width = jnp.where(epsilon > 1.0, math.sqrt(2.0) - 1.0, 1.0)
    value, slope = coefficients[beyond] @ _basis(2.0 * (t - beyond.astype(t.dtype)) / width - 1.0, _NODES_T)
    return value, value + t * slope / width
