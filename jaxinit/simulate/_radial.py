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

Backward, ratio = <r, f>^2 / (w' |h'|^2 |d|^2) is carried along with |d|^2: it is c^2 / s, and the next one is
ratio |h'|^2 / |d'|^2 in the units of both; |h'| |d| = |<r, f>| / sqrt(w' ratio) is the norm of dL/dW'.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._core import scaled
from jaxinit._core.normals import polar
from jaxinit._core.scaled import ChunkMoments, PackedMoments, Scaled, normalize
from jaxinit._core.struct import record, static
from jaxinit._core.sums import one_loop
from jaxinit._core.threefry import cipher
from jaxinit.network import Network
from jaxinit.simulate import _statistics as st
from jaxinit.simulate._chi import LEAST, MANY, chi_square, coins, lifted_chi_square
from jaxinit.simulate._inputs import Inputs

#: What lengths tell.
STATISTICS = frozenset(
    {
        "second_moment", "log_second_moment", "dead_fraction", "zero_fraction",
        "grad_second_moment", "log_grad_second_moment", "weight_grad_norm",
    }
)  # fmt: skip
#: One number a site, not one an input.
_OF_SITES = frozenset({"dead_fraction", "zero_fraction", "weight_grad_norm"})

#: Numbers of at least 0: mantissas in [1/2, 1), or 0, and exponents.
Numbers = tuple[jax.Array, jax.Array]
Take = Callable[[dict[str, Any]], Any]

#: Where the counters of what is drawn beside a layer's normals begin: uniform variables, and the end of the network.
_UNIFORM, _END = 1 << 8, 1 << 16


@record
class Radial:
    """The program of one seed, as `Dense`: `(key, (network, inputs)) -> statistics by name`, leading axis sites.

    `moments` are those over many seeds: a scan over layers of vectors of seeds, which keeps no statistic of a seed.

    `slopes`: of phi below and above 0.
    """

    shapes: tuple[tuple[int, int], ...] = static()
    slopes: tuple[float, float] = static()
    wanted: frozenset[str] = static()

    def __call__(self, key: jax.Array, data: tuple[Network, Inputs]) -> dict[str, Any]:
        found = self._walk(key[None], data, lambda values: values)
        return {
            name: jax.tree.map(lambda v: v[:, 0], value) if name in _OF_SITES else value
            for name, value in found.items()
        }

    def moments(self, keys: jax.Array, count: jax.Array, data: tuple[Network, Inputs]) -> PackedMoments:
        """Over the first `count` seeds."""
        valid = jnp.arange(keys.shape[0]) < count

        def take(values: dict[str, Any]) -> dict[str, ChunkMoments]:
            return {name: _moments(value, valid, count) for name, value in values.items()}

        found = self._walk(keys, data, take)
        depth = len(self.shapes)
        shapes = tuple(((depth,) if name in _OF_SITES else (depth, 1),) for name in found)
        return PackedMoments(tuple(found.values()), tuple((name,) for name in found), shapes)

    def _walk(self, keys: jax.Array, data: tuple[Network, Inputs], take: Take) -> dict[str, Any]:
        """Of every layer, leading axis, what `take` makes of its statistics, by name with a value for each key."""
        network, inputs = data
        words = jax.random.key_data(keys)
        key = (words[:, 0], words[:, 1])
        fan_in = jnp.asarray([n for n, _ in self.shapes], jnp.float32)
        weight = jnp.frexp(jnp.asarray(network.weight_variance, jnp.float32) / fan_in)
        backward = bool(self.wanted & st.BACKWARD)
        start = jax.tree.map(lambda v: jnp.broadcast_to(v, words.shape[:1]), _squared_length(inputs))
        carry = (start, start, jnp.zeros(words.shape[:1]))
        parts, first = [], 0
        for n, count in self._runs():

            def step(carry: Any, layer: Any, n: int = n) -> Any:
                index, *w = layer
                drawn = self._layer(key, index, n, backward)
                after, values, tape = self._forward(carry[0], drawn, n, w)
                return (after, carry[0], drawn["whole"]), (take(self._only(values)), tape)

            layers = (
                jnp.arange(first, first + count, dtype=jnp.uint32),
                *(v[first : first + count] for v in weight),
            )
            carry, part = jax.lax.scan(step, carry, layers)
            parts.append(part)
            first += count
        out, tape = jax.tree.map(lambda *v: jnp.concatenate(v), *parts) if len(parts) > 1 else parts[0]
        if backward:
            out |= self._gradients(key, carry[1:], tape, weight, take)
        return out

    def _runs(self) -> list[tuple[int, int]]:
        """Runs of layers of one width: (units, layers)."""
        return [(n, len(list(run))) for n, run in itertools.groupby(n for _, n in self.shapes)]

    def _only(self, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in self.wanted}

    def _squares(self) -> tuple[float, float, tuple[float, int]]:
        """The squared slopes below and above 0 in units of the larger one, and that, as mantissa and exponent."""
        top = max(map(abs, self.slopes)) or 1.0
        mantissa, exponent = math.frexp(top)
        below, above = (slope / top for slope in self.slopes)
        return below * below, above * above, (mantissa * mantissa, 2 * exponent)

    def _layer(self, key: Any, index: jax.Array, n: int, backward: bool) -> dict[str, jax.Array]:
        """What is drawn for a layer of n units, in units of w |h|^2.

        `whole`: |z|^2; `plus`, `minus`: its parts; `below`: n - K; `across`: t; `up`, `down`: C and D, -1 where there
        is no unit above or below.
        """
        both = backward and self.slopes[0] != 0
        squares = 2 + backward + both
        normal = _normals(key, 0, index, 1 + squares + both)
        k = coins(normal[0], n)
        if n < MANY:  # long, and used often
            (k,) = one_loop(k)
        freedom = [k, n - k, k - 1, n - k - 1][:squares]
        chi = _chi_squares(key, _UNIFORM, index, normal[1 : 1 + squares], freedom, n >= MANY)
        out = {"whole": chi[0] + chi[1], "plus": chi[0], "minus": chi[1], "below": n - k}
        if backward:
            out["up"] = jnp.where(k > 0, chi[2], -1)
        if both:
            out["down"] = jnp.where(k < n, chi[3], -1)
            out["across"] = normal[-1]
        return out

    def _forward(
        self, before: Numbers, drawn: dict[str, jax.Array], n: int, w: Any
    ) -> tuple[Numbers, Any, Any]:
        """|h'|^2 of a layer from |h|^2, its statistics, and what the gradient needs."""
        a2, b2, slope = self._squares()
        plus, minus = b2 * drawn["plus"], a2 * drawn["minus"]
        live, lost = plus + minus, before[0] == 0  # lost: nothing arrives, every unit is 0
        square = _times(before, w, (drawn["whole"], 0))
        after = _times(before, w, (live * slope[0], slope[1]))
        tape = {}
        if "up" in drawn:
            tape = {"live": live, "up": jnp.where(lost, -1, drawn["up"])}
        if "down" in drawn:
            above = jnp.where(live > 0, plus / jnp.where(live > 0, live, 1), 0)
            tape |= {"down": jnp.where(lost, -1, drawn["down"]), "across": drawn["across"], "above": above}
        silent = jnp.where(lost, 1, drawn["below"] / n) if self.slopes[0] == 0 else jnp.zeros_like(live)
        square, after, silent, tape = _together((square, after, silent, tape))
        q = Scaled(square[0] / n, square[1])
        values = {
            "second_moment": q, "log_second_moment": st.log_of(q), "dead_fraction": silent, "zero_fraction": silent,
        }  # fmt: skip
        return after, values, tape

    def _gradients(self, key: Any, last: Any, tape: Any, weight: Any, take: Take) -> dict[str, Any]:
        """The statistics of |d|^2, from the last layer back."""
        before, whole = last
        depth, n_out = len(self.shapes), self.shapes[-1][1]
        a2, b2, slope = self._squares()
        w = tuple(v[-1] for v in weight)
        of_r = _normals(key, _END, jnp.uint32(0), 2)
        rest = _chi_squares(
            key, _END + _UNIFORM, jnp.uint32(0), of_r[1:], [jnp.full_like(whole, n_out - 1)], n_out > LEAST
        )[0]
        along = jnp.square(of_r[0])
        d = _times((along + rest, jnp.zeros(whole.shape, jnp.int32)), (1 / n_out, 0))
        product = _times(before, w, (whole * along, 0), (1 / n_out, 0))  # <r, f>^2
        ratio = whole * along / (along + rest)
        end = take(self._only(_of_gradient(d, _root(_times(before, d)), n_out)))

        def step(carry: Any, layer: Any) -> Any:
            d, ratio = carry
            index, n, w, own = layer
            drawn = {name: jax.lax.dynamic_index_in_dim(v, index, keepdims=False) for name, v in tape.items()}
            up, live = drawn["up"], drawn["live"]
            if a2 == 0:
                length = jnp.where(up >= 0, b2 * (ratio + up), 0)
            else:
                down, across, above = drawn["down"], drawn["across"], drawn["above"]
                top = jnp.sqrt(ratio * above) + across * jnp.sqrt(1 - above)
                bottom = jnp.sqrt(ratio * (1 - above)) - across * jnp.sqrt(above)
                length = jnp.where(up >= 0, b2 * (top * top + up), 0)
                length = length + jnp.where(down >= 0, a2 * (bottom * bottom + down), 0)
            d = _times(d, w, (length * slope[0], slope[1]))
            ratio = jnp.where(length > 0, ratio * live / jnp.where(length > 0, length, 1), 0)
            share = own[0] * ratio
            norm = _times(product, (jnp.where(share > 0, 1 / jnp.where(share > 0, share, 1), 0), -own[1]))
            d, ratio, norm = _together((d, ratio, _root(norm)))
            return (d, ratio), take(self._only(_of_gradient(d, norm, n)))

        widths = jnp.asarray([n for _, n in self.shapes[:-1]], jnp.float32)
        layers = (
            jnp.arange(depth - 1), widths, tuple(v[1:] for v in weight), tuple(v[:-1] for v in weight),
        )  # fmt: skip
        _, out = jax.lax.scan(step, (d, ratio), layers, reverse=True)
        return jax.tree.map(lambda v, last: jnp.concatenate([v, last[None]]), out, end)


def _of_gradient(d: Numbers, norm: Numbers, n: Any) -> dict[str, Any]:
    """The statistics of |d|^2, and |h| |d|."""
    square = Scaled(d[0] / n, d[1])
    return {
        "grad_second_moment": square, "log_grad_second_moment": st.log_of(square),
        "weight_grad_norm": Scaled(*norm),
    }  # fmt: skip


def _root(number: Numbers) -> Numbers:
    odd = number[1] & 1
    return jnp.sqrt(number[0] * (1 + odd).astype(number[0].dtype)), (number[1] - odd) // 2


def _moments(value: Any, valid: jax.Array, count: jax.Array) -> ChunkMoments:
    """As `scaled.reduce` of the valid entries, the first `count`, which are numbers: in few passes over them."""
    top, log = jnp.zeros((), jnp.int32), False
    if isinstance(value, Scaled):
        lowest, log = jnp.iinfo(jnp.int32).min, value.log
        top = jnp.max(jnp.where(valid & (value.mantissa > 0), value.exponent, lowest))
        top = jnp.where(top == lowest, 0, top)
        shift = jnp.minimum(value.exponent - top, 0)
        if log:
            value = jnp.log(value.mantissa) + shift.astype(jnp.float32) * jnp.float32(math.log(2.0))
        else:
            value = value.mantissa * scaled.pow2(shift, jnp.float32)
    first = value[0]
    value = jnp.where(valid, value, first)
    pivot = jnp.where(jnp.isfinite(first), first, 0)
    n = count.astype(jnp.float32)
    mean = jnp.sum(value - pivot) / n + pivot
    m2 = jnp.sum(jnp.where(valid, jnp.square(value - mean), 0))
    exponent, offset = (jnp.zeros_like(top), top) if log else (top, jnp.zeros_like(top))
    return ChunkMoments(count, mean, m2, jnp.min(value), jnp.max(value), exponent, offset)


def _normals(key: Any, first: int, index: jax.Array, count: int) -> jax.Array:
    """(count, keys) normals, of the counters (first, index), (first + 1, index), ..."""
    return jnp.concatenate(one_loop(*polar(*_words(key, first, index, -(-count // 2)))))[:count]


def _chi_squares(
    key: Any, first: int, index: jax.Array, normal: jax.Array, freedom: list[jax.Array], many: bool
) -> list[jax.Array]:
    """Chi-squares of these degrees of freedom; `many`: they are LEAST or more."""
    if many:
        return [chi_square(z, f) for z, f in zip(normal, freedom, strict=True)]
    half = jnp.float32(2.0**-33)
    words = _words(key, first, index, LEAST // 4 * len(freedom))
    logs = one_loop(*(jnp.log(v.astype(jnp.float32) * jnp.float32(2.0**-32) + half) for v in words))
    each = jnp.concatenate(logs).reshape((LEAST // 2, len(freedom), -1))
    return list(one_loop(lifted_chi_square(normal, each, jnp.maximum(jnp.stack(freedom), 0)))[0])


def _words(key: Any, first: int, index: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The cipher's words (count, keys) of the counters (first, index), (first + 1, index), ..."""
    counter = jnp.arange(first, first + count, dtype=jnp.uint32)[:, None]
    shape = (count, key[0].shape[0])
    k0, k1, x = (jnp.broadcast_to(v, shape) for v in (key[0][None], key[1][None], counter))
    return cipher((k0, k1), x, jnp.broadcast_to(index, shape))


def _together(tree: Any) -> Any:
    """The arrays of a pytree in one loop over their entries."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, one_loop(*leaves))


def _times(number: Numbers, *factors: Any) -> Numbers:
    """The product of mantissas and exponents; every factor's are within a few powers of two of 1."""
    mantissa, exponent = number
    for factor in factors:
        mantissa, exponent = mantissa * factor[0], exponent + factor[1]
    bits = jax.lax.bitcast_convert_type(mantissa, jnp.int32)
    shift = (bits >> 23) - 126
    mantissa_bits = (bits & 0x007FFFFF) | 0x3F000000
    some = shift > -126
    unit = jax.lax.bitcast_convert_type(mantissa_bits, jnp.float32)
    return jnp.where(some, unit, 0), exponent + jnp.where(some, shift, 0)


def _squared_length(inputs: Inputs) -> Numbers:
    """|x|^2 of the one input."""
    if inputs.given is None:
        root, exponent = jnp.frexp(jnp.asarray(inputs.mix, jnp.float32)[0, 0])
        return _times((jnp.square(root), 2 * exponent), (jnp.float32(inputs.shape[1]), 0))
    x, exponent = normalize(jnp.asarray(inputs.given, jnp.float32), jnp.zeros(1, jnp.int32))
    return _times((jnp.sum(jnp.square(x)), 2 * exponent[0]))


def slopes_of(activation: Any) -> tuple[float, float] | None:
    """The slopes of phi below and above 0 if it is linear on both sides of 0, else None."""
    x = np.asarray([-7.0, -1.0, -0.5, 0.5, 1.0, 7.0], np.float32)
    with jax.ensure_compile_time_eval():
        ratio = np.asarray(activation(jnp.asarray(x)), np.float64) / x
    below, above = ratio[:3], ratio[3:]
    if np.ptp(below) > 1e-6 * max(np.abs(below).max(), 1e-30) or np.ptp(above) > 1e-6 * np.abs(above).max():
        return None
    return float(below[1]) + 0.0, float(above[1]) + 0.0
