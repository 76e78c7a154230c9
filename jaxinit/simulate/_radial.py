"""One seed of a (leaky) ReLU or linear network with one input, drawn by its lengths alone: O(1) a layer.

phi(z) = z for z > 0 and a z below, Gaussian weights of variance w = sigma_w^2 / n_in, no biases. A Gaussian matrix
turns h into |h| times a standard normal vector whatever its direction, and the signs of normals are coins that do not
depend on their sizes. So with K of the layer's n units above 0,

    K ~ Binomial(n, 1/2),   |z+|^2 = w |h|^2 A,   |z-|^2 = w |h|^2 B,   A ~ chi2_K,  B ~ chi2_(n-K),
    |h'|^2 = |z+|^2 + a^2 |z-|^2.

Backward, the next matrix W' is asked for d W'^T after h' W' = z' is known: with u = h' / |h'|, w' the variance of W',

    d W'^T = <d, z'> / |h'| u + sqrt(w') |d| (I - u u^T) g,     g iid N(0, 1),

and <d, z'> = <r, f> for every layer, since phi'(z) z = phi(z) (Euler). u has the parts p = |z+|^2 / |h'|^2 of its
square above 0 and 1 - p below. Of the plane of those two parts, the part of g across u is one normal t; the other K - 1
and n - K - 1 directions are chi-squares. So phi'(z) takes d W'^T to

    |d'|^2 = (c sqrt(p) + t sqrt(1 - p))^2 + s C + a^2 [ (c sqrt(1 - p) - t sqrt(p))^2 + s D ],
    c = <r, f> / |h'|,   s = w' |d|^2,   t ~ N(0, s),   C ~ chi2_(K-1),   D ~ chi2_(n-K-1),

and t = 0 where all units have one sign. At the output d = r, whose part along z^L is an independent normal. All of this
is exact, forward and backward jointly (the length of ReLU networks is the walk of Hanin & Nica 2020).
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core.normals import normals, vector
from jaxinit._core.scaled import Scaled, normalize
from jaxinit._core.struct import record, static
from jaxinit.network import Network
from jaxinit.simulate import _statistics as st
from jaxinit.simulate._chi import chi_square, coins
from jaxinit.simulate._inputs import Inputs

#: What lengths tell.
STATISTICS = frozenset(
    {
        "second_moment", "log_second_moment", "dead_fraction", "zero_fraction",
        "grad_second_moment", "log_grad_second_moment", "weight_grad_norm",
    }
)  # fmt: skip


@record
class Radial:
    """The program of one seed, as `Dense`: `(key, (network, inputs)) -> statistics by name`, leading axis sites.

    `slopes`: of phi below and above 0.
    """

    shapes: tuple[tuple[int, int], ...] = static()
    slopes: tuple[float, float] = static()
    wanted: frozenset[str] = static()

    def __call__(self, key: jax.Array, data: tuple[Network, Inputs]) -> dict[str, Any]:
        network, inputs = data
        backward = bool(self.wanted & st.BACKWARD)
        every = jax.random.split(key, len(self._runs()) + 1)
        parts = [
            _layers(k, n, count, self.slopes, backward)
            for k, (n, count) in zip(every[1:], self._runs(), strict=True)
        ]
        layers = jax.tree.map(lambda *v: jnp.concatenate(v), *parts)
        fan_in = jnp.asarray([n for n, _ in self.shapes], jnp.float32)
        weight = jnp.asarray(network.weight_variance, jnp.float32) / fan_in
        start = _squared_length(inputs)

        def forward(h: Any, layer: Any) -> tuple[Any, Any]:
            whole, live, w = layer
            return _times(h, w * live), (h, _times(h, w * whole))

        _, (before, z) = jax.lax.scan(forward, start, (layers["whole"], layers["live"], weight))
        lost = before[0] == 0  # nothing arrives: every unit is 0
        out = self._forward_statistics(z, layers, lost)
        if backward:
            d = self._gradients(every[0], layers, weight, lost)
            out |= self._backward_statistics(before, d)
        return {name: value for name, value in out.items() if name in self.wanted}

    def _runs(self) -> list[tuple[int, int]]:
        """Runs of layers of one width: (units, layers)."""
        return [(n, len(list(run))) for n, run in itertools.groupby(n for _, n in self.shapes)]

    def _forward_statistics(self, z: Any, layers: dict[str, Any], lost: jax.Array) -> dict[str, Any]:
        n = jnp.asarray([n for _, n in self.shapes], jnp.float32)
        square = Scaled((z[0] / n)[:, None], z[1][:, None])
        silent = jnp.where(lost, 1.0, layers["below"] / n) if self.slopes[0] == 0 else jnp.zeros_like(n)
        return {
            "second_moment": square, "log_second_moment": st.log_of(square),
            "dead_fraction": silent, "zero_fraction": silent,
        }  # fmt: skip

    def _gradients(self, key: Any, layers: dict[str, Any], weight: jax.Array, lost: jax.Array) -> Any:
        """|d|^2 of every layer, as mantissas and exponents."""
        n_out = self.shapes[-1][1]
        along = jnp.square(normals(key, 1, 1)[0, 0])
        rest = chi_square(jax.random.fold_in(key, 1), jnp.full((1, 1), n_out - 1.0))[0, 0]
        ratio = layers["whole"][-1] * along / (along + rest)
        zero = jnp.zeros((), jnp.int32)

        def step(carry: Any, layer: Any) -> tuple[Any, Any]:
            d, ratio = carry
            live, above, across, up, down, w, gone = layer
            # `ratio`: <r, f>^2 / (w' |h'|^2 |d|^2); lengths below are in units of w' |d|^2.
            top = jnp.sqrt(ratio * above) + across * jnp.sqrt(1 - above)
            bottom = jnp.sqrt(ratio * (1 - above)) - across * jnp.sqrt(above)
            a, b = self.slopes
            length = b * b * jnp.where(up >= 0, top * top + up, 0)
            length = length + a * a * jnp.where(down >= 0, bottom * bottom + down, 0)
            length = jnp.where(gone, 0, length)
            new = _times(d, w * length)
            return (new, jnp.where(length > 0, ratio * live / jnp.where(length > 0, length, 1), 0)), new

        names = ("live", "above", "across", "up", "down")
        hidden = (*(layers[k][:-1] for k in names), weight[1:], lost[:-1])
        end = _times((jnp.ones(()), zero), (along + rest) / n_out)
        _, d = jax.lax.scan(step, (end, ratio), hidden, reverse=True)
        return tuple(jnp.append(all_but, last) for all_but, last in zip(d, end, strict=True))

    def _backward_statistics(self, before: Any, d: Any) -> dict[str, Any]:
        n = jnp.asarray([n for _, n in self.shapes], jnp.float32)
        square = Scaled((d[0] / n)[:, None], d[1][:, None])
        exponent = before[1] + d[1]
        odd = exponent & 1
        norm = jnp.sqrt(before[0] * d[0] * (1 + odd).astype(n.dtype))
        return {
            "grad_second_moment": square, "log_grad_second_moment": st.log_of(square),
            "weight_grad_norm": Scaled(norm, (exponent - odd) // 2),
        }  # fmt: skip


def _layers(key: Any, n: int, count: int, slopes: tuple[float, float], backward: bool) -> dict[str, Any]:
    """What is drawn for `count` layers of n units, in units of w |h|^2 of each: arrays of `count` numbers.

    `whole`: |z|^2; `live`: |h'|^2; `above`: the share p of it; `below`: n - K; `across`: t; `up`, `down`: C and D, -1
    where there is no unit above or below.
    """
    a, b = slopes
    of_coins, of_squares, of_plane = jax.random.split(key, 3)
    k = coins(of_coins, (1, count), n)[0]
    freedom = [k, n - k]
    if backward:
        freedom += [jnp.maximum(k - 1, 0)] + ([jnp.maximum(n - k - 1, 0)] if a else [])
    squares = chi_square(of_squares, jnp.stack(freedom))
    plus, minus = b * b * squares[0], a * a * squares[1]
    live = plus + minus
    out = {"whole": squares[0] + squares[1], "live": live, "below": n - k}
    if backward:
        out["above"] = jnp.where(live > 0, plus / jnp.where(live > 0, live, 1), 0)
        out["across"] = vector(of_plane, count)
        out["up"] = jnp.where(k > 0, squares[2], -1)
        out["down"] = jnp.where(k < n, squares[3] if a else 0, -1)
    return out


def _squared_length(inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """|x|^2 of the one input."""
    if inputs.given is None:
        square = jnp.square(jnp.asarray(inputs.mix, jnp.float32)[0, 0]) * inputs.shape[1]
        return _times((jnp.ones(()), jnp.zeros((), jnp.int32)), square)
    x, exponent = normalize(jnp.asarray(inputs.given), jnp.zeros(1, jnp.int32))
    return jnp.sum(jnp.square(x)), 2 * exponent[0]


def _times(number: Any, factor: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(mantissa, exponent) times a factor, the mantissa in [1/2, 1) again."""
    mantissa, exponent = number
    rows, exponent = normalize((mantissa * factor)[None, None], exponent[None])
    return rows[0, 0], exponent[0]


def slopes_of(activation: Any) -> tuple[float, float] | None:
    """The slopes of phi below and above 0 if it is linear on both sides of 0, else None."""
    x = np.asarray([-7.0, -1.0, -0.5, 0.5, 1.0, 7.0], np.float32)
    with jax.ensure_compile_time_eval():
        ratio = np.asarray(activation(jnp.asarray(x)), np.float64) / x
    below, above = ratio[:3], ratio[3:]
    if np.ptp(below) > 1e-6 * max(np.abs(below).max(), 1e-30) or np.ptp(above) > 1e-6 * np.abs(above).max():
        return None
    return float(below[1]) + 0.0, float(above[1]) + 0.0
