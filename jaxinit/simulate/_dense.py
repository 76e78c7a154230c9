"""One seed of a network, fully connected or convolutional: forward scan, backward scan, statistics on the spot."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit._core.compiling import Kind
from jaxinit._core.normals import vector
from jaxinit._core.scaled import Scaled, exponent_of, normalize, pow2
from jaxinit._core.struct import record, static
from jaxinit._core.threefry import split
from jaxinit.network import Network
from jaxinit.simulate import _statistics as st
from jaxinit.simulate._convolution import Convolution
from jaxinit.simulate._driven import Driven
from jaxinit.simulate._inputs import Inputs
from jaxinit.simulate._local import Activate, add
from jaxinit.simulate._tied import Tied
from jaxinit.simulate._weights import LayerKeys, Weights

Layer = Weights | Convolution | Tied

#: What the names of figures of a matrix begin with, which are those of no site.
PARAMETER = "parameter "


@record
class Dense:
    """The program of one seed: `(key, (network, inputs)) -> statistics by name`, each with leading axis sites.

    Everything here is static: networks that differ only in numbers share the compiled program.
    """

    weights: tuple[Layer, ...] = static()
    activate: Activate = static()
    biased: bool = static()
    wanted: frozenset[str] = static()
    skips: str | None = static(default=None)
    driven: Driven | None = static(default=None)

    @property
    def compiled_for(self) -> Kind:
        """Frames and products of many rows, as of patches or of all steps of tied weights, are not loops of ours."""
        if not all(isinstance(w, Weights) for w in self.weights):
            return "brief"
        return None if any(w.sampler == "materialized" for w in self.weights) else "loops"

    def __call__(self, key: jax.Array, data: tuple[Network, Inputs]) -> dict[str, Any]:
        network, inputs = data
        # One split for everything; a layer's keys do not depend on the depth.
        every = split(key, (len(self.weights) + 1, 4))
        keys = LayerKeys.of(every[1:], network.tied)
        precision = self.activate.precision
        drive = None
        if self.driven is None:
            h = precision.entries(inputs.draw(every[0, 0]))
        else:
            drive = self.driven(every[0, 2], self.driven.inputs(every[0, 0], inputs), network)
            h = jnp.zeros(drive[0].shape[1:], drive[0].dtype)
        h, exponent = normalize(h, jnp.zeros(h.shape[0], jnp.int32))
        stream = (h, exponent) if self.skips == "pre" else None
        state = self.weights[0].start(keys, h.shape[0], network)
        signal = (h, exponent, self.activate.start(h), stream, state)
        skips = None if self.skips is None else _factors(network, len(self.weights), h.dtype)

        forward, tapes, start = [], [], 0
        runs = [(w, len(list(group))) for w, group in itertools.groupby(self.weights)]
        for weights, count in runs:
            step = self._forward_step(weights, network)
            layers = jax.tree.map(lambda k, a=start, b=start + count: k[a:b], (keys, skips, drive))
            signal, (figures, tape) = _run(step, signal, layers)
            forward.append(figures)
            tapes.append((weights, layers, tape))
            start += count
        out = st.with_logs(self.wanted, _concatenate(forward))
        if not self.wanted & st.BACKWARD:
            return out

        rows, n_out = h.shape[0], self.weights[-1].units
        r = vector(every[0, 1], n_out, h.dtype) / jnp.sqrt(jnp.asarray(n_out, h.dtype))
        r = precision.entries(r)
        d, exponent = normalize(jnp.tile(r[None, :], (rows, 1)), jnp.zeros(rows, jnp.int32))
        gradient = (d, exponent, (jnp.zeros_like(d), exponent) if self.skips == "post" else None, signal[-1])
        backward: list[dict[str, Any]] = []
        cotangents = None
        for weights, layers, tape in reversed(tapes):
            step = self._backward_step(weights, network)
            gradient, (figures, cotangents) = _run(step, gradient, (layers, tape), reverse=True)
            backward.insert(0, figures)
        out |= st.with_logs(self.wanted, _concatenate(backward))
        if cotangents is not None:
            out |= self._of_the_matrix(keys, gradient[3], tapes[0][2], cotangents, out, network, skips)
        return {name: v for name, v in out.items() if name in self.wanted or name.startswith(PARAMETER)}

    def _of_the_matrix(
        self, keys: LayerKeys, state: Any, tape: Any, d: Any, out: Any, network: Network, skips: Any
    ) -> dict[str, Any]:
        """What is known of a matrix that all layers share at the end only."""
        tied = self.weights[0]
        assert isinstance(tied, Tied)
        factor = skips[1] if self.skips == "pre" else jnp.ones(tied.layers, d[0].dtype)
        found = tied.measure(keys, state, (tape[2], tape[3]), d, factor, network)
        each, norm = out["weight_grad_norm"], found["norm"]
        ratio = {"update_ratio": Scaled(each.mantissa / norm, each.exponent)}
        return ratio | {PARAMETER + name: value for name, value in found.items()}

    def _forward_step(self, weights: Layer, network: Network) -> Any:
        wanted, precision = self.wanted, self.activate.precision

        def step(signal: Any, layer: tuple[LayerKeys, Any, Any]) -> Any:
            keys, skip, drive = layer
            h, before, local_before, stream, state = signal
            y, residual, state = weights.forward(keys, state, h, network)
            seen, (y, exponent) = weights.seen(h), precision.rows(y, before)
            if drive is not None:
                y, exponent = precision.rows(*add(*normalize(y, exponent), *drive))
            if self.biased:
                b = weights.spread(vector(keys.bias, weights.shape[1], y.dtype))
                b = precision.entries(b * jnp.sqrt(jnp.asarray(network.bias_variance, y.dtype)))
                y, exponent = precision.rows(*_add_bias(y, exponent, b))
            if self.skips == "pre":
                y, exponent = precision.rows(*_skip(y, exponent, stream, skip))
            z, exponent = normalize(y, exponent)
            # The stream of "pre" is z; that of "post", h.
            stream = (z, exponent) if self.skips == "pre" else None
            key = jax.random.fold_in(keys.norm, 1) if self.activate.drops else keys.norm
            value, after, phi, slope, local = self.activate(key, z, exponent, network.dropout)
            figures = st.forward(wanted, z, exponent, phi, slope, self.activate.nonlinearity.largest_slope)
            if self.skips == "post":
                value, after = precision.rows(*_skip(value, after, (h, before), skip))
                local = local.times(skip[1])
            tape = None
            if wanted & st.BACKWARD:
                tape = (weights.kept(residual), local_before, seen, before)
            return (*normalize(value, after), local, stream, state), (figures, tape)

        return step

    def _backward_step(self, weights: Layer, network: Network) -> Any:
        precision, wanted = self.activate.precision, self.wanted
        whole = isinstance(weights, Tied) and weights.whole
        if whole:
            wanted |= {"weight_grad_norm"}

        def step(gradient: Any, xs: Any) -> Any:
            (keys, skip, _), (residual, local, seen, seen_exponent) = xs
            d, exponent, stream, state = gradient

            def squared_gradient(weight: jax.Array) -> jax.Array:
                square = weights.squared_gradient(seen, d, weight)
                return square * jnp.square(skip[1]) if self.skips == "pre" else square

            ratio = "update_ratio" in wanted
            before, state, norm = weights.backward(keys, state, residual, d, network, ratio)
            figures = st.backward(wanted, d, exponent, squared_gradient, seen_exponent, norm)
            found = (figures, (d, exponent) if whole else None)
            before, scale = precision.rows(before, exponent)
            if self.skips == "post":  # of the stream, then through the layer before
                stream = normalize(*_skip(before, scale, stream, (skip[0], jnp.ones_like(skip[1]))))
                stream = precision.rows(*stream)
                return (*normalize(*precision.rows(*local.pull(*stream))), stream, state), found
            before, scale = precision.rows(*local.pull(before, scale))
            if self.skips == "pre":
                before, scale = precision.rows(*_skip(before, scale, (d, exponent), skip))
            return (*normalize(before, scale), None, state), found

        return step


def _factors(network: Network, depth: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """alpha and beta of each layer: 0 and 1 of the first, which has no skip."""
    assert network.residual is not None
    first = jnp.arange(depth) == 0
    alpha, beta = (jnp.asarray(v, dtype) for v in (network.residual.alpha, network.residual.beta))
    return jnp.where(first, 0, alpha), jnp.where(first, 1, beta)


def _skip(branch: jax.Array, exponent: jax.Array, stream: Any, skip: Any) -> tuple[jax.Array, jax.Array]:
    """alpha stream + beta branch, with their exponents; only the branch where the width changes."""
    branch, exponent = normalize(branch * skip[1], exponent)
    stream, stream_exponent = stream
    if stream.shape != branch.shape:
        return branch, exponent
    return add(branch, exponent, *normalize(stream * skip[0], stream_exponent))


def _run(step: Any, carry: Any, xs: Any, reverse: bool = False) -> tuple[Any, Any]:
    """`lax.scan`, except that a single layer may change the width."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(step, carry, xs, reverse=reverse)
    carry, ys = step(carry, jax.tree.map(lambda v: v[0], xs))
    return carry, jax.tree.map(lambda v: jnp.asarray(v)[None], ys)


def _add_bias(y: jax.Array, exponent: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """y * 2^exponent + b, at the larger of the two scales, so that neither overflows."""
    own = jnp.where(jnp.any(b != 0), exponent_of(b, axis=0), jnp.iinfo(jnp.int32).min // 2)
    common = jnp.maximum(exponent, own)
    scale = pow2(jnp.minimum(-common, 126), y.dtype)
    return y * pow2(exponent - common, y.dtype)[:, None] + b[None, :] * scale[:, None], common


def _concatenate(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return jax.tree.map(lambda *v: jnp.concatenate(v), *parts)
