"""The largest singular values of the input-output Jacobian of networks too wide for their weights to be formed.

J = dz^L / dx, as rows t -> t W_1 D_1 W_2 .. D_{L-1} W_L with D_l = diag phi'(z^l), is only ever asked for products
with vectors, and so is every W_l: what has been seen of it is kept, and the next product drawn from its law given that
(`jaxinit.implicit._known`; exact for any sequence, however products depend on earlier ones). Golub & Kahan's
bidiagonalization (1965; Paige 1974) makes orthonormal u_1 .. u_{m+1} of outputs and v_1 .. v_m of inputs with

    J v_i = alpha_i u_i + beta_{i+1} u_{i+1},     J^T u_i = beta_i v_{i-1} + alpha_i v_i,

so that J V_m = U_{m+1} B with B (m + 1, m) of alphas and, below them, betas. A singular value theta of B, of left
vector p, has U_{m+1} p as its approximate left vector with J^T U_{m+1} p = theta V_m q + alpha_{m+1} p_{m+1} v_{m+1}: a
singular value of J lies within alpha_{m+1} |p_{m+1}| of theta. By interlacing the i-th theta is at most the i-th
singular value of J; that none above was missed is certain only up to the randomness of the start, as with every
Krylov method (Kuczynski & Wozniakowski 1992). When m is the smaller of the widths at both ends, B has them all.

All vectors are made orthogonal to all earlier ones, twice: without that, values would appear again and again. Products
are in float32: values below 1e-6 or so of a network's largest are rounding.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import ensemble
from jaxinit._core import compiling
from jaxinit._core.normals import normals, vector
from jaxinit._core.scaled import Scaled, normalize
from jaxinit._core.struct import leaf, record, static
from jaxinit._core.threefry import split
from jaxinit.implicit._known import GaussianKnown, HaarKnown, resolve
from jaxinit.network import Network
from jaxinit.simulate._dense import _add_bias, _run
from jaxinit.simulate._inputs import Inputs
from jaxinit.simulate._signal import Nonlinearity
from jaxinit.simulate._weights import LayerKeys, Weights

#: Steps end when the errors of all values wanted are at most so large relative to them.
TOLERANCE = 1e-3
#: Room for so many steps to begin with; it doubles when it is full.
_ROOM = 32

Known = GaussianKnown | HaarKnown


def most_steps(count: int, rank: int) -> int:
    """How many steps are taken at most for so many values; by then B may have them all."""
    return min(rank, 32 + 16 * count)


def bytes_of(shapes: Iterable[tuple[int, int]], inputs: int, steps: int) -> int:
    """Bytes that one network takes after so many steps, of either law: each product keeps a row on both sides."""
    return 4 * 2 * (inputs + steps) * sum(a + b for a, b in shapes)


@record
class State:
    """Of one network: what is known of its matrices and its derivatives, by runs of equal layers, and u and v."""

    known: tuple[Known, ...] = leaf()
    slopes: tuple[Any, ...] = leaf()
    u: Any = leaf()
    v: Any = leaf()
    steps: Any = leaf()


@record
class Lanczos:
    """Bidiagonalization of J at the first input: `start`, then `step` after `step`.

    The network is the one that `Dense` measures for the same key, if its weights are implicit: the products that
    `Dense` draws, forward of all inputs and (if it measures them) of gradients, are drawn here first, with its keys,
    and all others given them. They agree to rounding. Beyond 128 inputs, whose frames are LAPACK's, they agree in law
    only, as does the norm of W for "update_ratio", which `Dense` draws given its own products alone.

    `inputs`: of `Dense`; `gradients`: of how many of them it measures the gradient, at least 1.
    """

    weights: tuple[Weights, ...] = static()
    nonlinearity: Nonlinearity = static()
    biased: bool = static()
    inputs: int = static()
    gradients: int = static()

    def start(self, key: jax.Array, data: tuple[Network, Inputs], room: int) -> tuple[State, Scaled]:
        """Forward, and back from u_1 (the r of `Dense`) to v_1: the state, with room for steps, and alpha_1."""
        network, inputs = data
        every = split(key, (len(self.weights) + 1, 4))  # as in Dense: the same networks
        keys = LayerKeys.of(every[1:])
        h, exponent = normalize(inputs.draw(every[0, 0]), jnp.zeros(self.inputs, jnp.int32))
        carry = (h, exponent, jnp.ones_like(h))
        known: list[Known] = []
        slopes: list[jax.Array] = []
        for weights, part in self._runs():
            nothing = self._nothing(weights, part.stop - part.start, room, h.dtype)
            layers = jax.tree.map(lambda k, part=part: k[part], (keys.forward, keys.bias))
            carry, (slope, rows) = _run(self._forward(weights, network), carry, (nothing, *layers))
            known.append(_noted(nothing, rows, left=False, at=0))
            slopes.append(slope)

        r = vector(every[0, 1], self.weights[-1].units, h.dtype)
        d = jnp.broadcast_to(r, (self.gradients, len(r)))
        u, v = (jnp.zeros((room + 1, n), h.dtype) for n in (len(r), h.shape[1]))
        state = State(tuple(known), tuple(slopes), u, v, jnp.zeros((), jnp.int32))
        g, exponent, seen = self._through(state, keys.backward, d, network, left=True, first=True)
        _, u = _join(every[0, 3], u, r[None], 0)
        alpha, v = _join(every[0, 3], v, g[:1] / jnp.sqrt(jnp.sum(jnp.square(r))), 0)
        own = tuple(s[:, :1] for s in slopes)
        return State(seen, own, u, v, state.steps), Scaled(alpha, exponent[0])

    def step(self, key: jax.Array, state: State, network: Network) -> tuple[State, tuple[Scaled, Scaled]]:
        """To v_{i+1}, u_{i+1} from those before: the state after, beta_{i+1} and alpha_{i+1}."""
        i = state.steps
        key = jax.random.fold_in(split(key, (len(self.weights) + 1, 4))[0, 3], i.astype(jnp.uint32) + 1)
        right, left, to_u, to_v = jax.random.split(key, 4)
        each = partial(jax.random.split, num=len(self.weights))
        w, exponent, known = self._through(state, each(right), _row(state.v, i), network, left=False)
        beta, u = _join(to_u, state.u, w, i + 1)
        state = dataclasses.replace(state, known=known, u=u)
        w, after, known = self._through(state, each(left), _row(u, i + 1), network, left=True)
        alpha, v = _join(to_v, state.v, w, i + 1)
        state = dataclasses.replace(state, known=known, v=v, steps=i + 1)
        return state, (Scaled(beta, exponent[0]), Scaled(alpha, after[0]))

    def _runs(self) -> Iterator[tuple[Weights, slice]]:
        start = 0
        for weights, group in itertools.groupby(self.weights):
            stop = start + len(list(group))
            yield weights, slice(start, stop)
            start = stop

    def _nothing(self, weights: Weights, layers: int, room: int, dtype: Any) -> Known:
        """Nothing seen yet of so many matrices: buffers, with room for the products of `start` and of the steps."""
        (n_in, n_out), counts = weights.shape, jnp.zeros((layers, 3), dtype)
        right, left = self.inputs + room, self.gradients + room
        if weights.law == "orthogonal":
            rows = jnp.zeros((layers, right + left, max(n_in, n_out)), dtype)
            return HaarKnown(rows, rows, counts, weights.shape)
        shapes = (right, n_in), (right, n_out), (left, n_out), (left, n_in)
        p, y, q, z = (jnp.zeros((layers, *shape), dtype) for shape in shapes)
        return GaussianKnown(p, y, q, z, counts)

    def _place(self, law: type[Known], steps: Any, left: bool, first: bool) -> Any:
        """Where the rows of a product go: buffers of a Gaussian matrix are those of one side."""
        if law is HaarKnown:
            at = self.inputs if left else 0
            return at if first else self.inputs + self.gradients + 2 * steps + int(left)
        return 0 if first else (self.gradients if left else self.inputs) + steps

    def _forward(self, weights: Weights, network: Network) -> Any:
        def step(carry: Any, layer: tuple[Known, jax.Array, jax.Array]) -> Any:
            (h, exponent, slope), (known, key, bias_key) = carry, layer
            z, *rows = known.draw(key, h, weights.scale(network))
            if self.biased:
                b = vector(bias_key, z.shape[1], z.dtype)
                b = b * jnp.sqrt(jnp.asarray(network.bias_variance, z.dtype))
                z, exponent = _add_bias(z, exponent, b)
            z, exponent = normalize(z, exponent)
            value, exponent, after = self.nonlinearity(z, exponent)
            return (*normalize(value, exponent), after), (slope, rows)

        return step

    def _through(
        self, state: State, keys: jax.Array, x: jax.Array, network: Network, left: bool, first: bool = False
    ) -> tuple[jax.Array, jax.Array, tuple[Known, ...]]:
        """x J^T, or (left) x J, rows of x with the derivatives of their inputs; exponents; what is known then."""
        known = list(state.known)
        carry = normalize(x, jnp.zeros(len(x), jnp.int32))
        runs = list(enumerate(self._runs()))
        for n, (weights, part) in reversed(runs) if left else runs:
            layers = (known[n], keys[part], state.slopes[n][:, : len(x)])
            carry, rows = _run(_layer(weights.scale(network), left), carry, layers, reverse=left)
            known[n] = _noted(known[n], rows, left, self._place(type(known[n]), state.steps, left, first))
        return *carry, tuple(known)


def _layer(scale: jax.Array, left: bool) -> Any:
    def step(carry: tuple[jax.Array, jax.Array], layer: tuple[Known, jax.Array, jax.Array]) -> Any:
        (x, exponent), (known, key, slope) = carry, layer
        if left:
            x, *rows = known.transposed.draw(key, x, scale)
            x = x * slope
        else:
            x, *rows = known.draw(key, x * slope, scale)
        return normalize(x, exponent), rows

    return step


def _noted(known: Known, rows: tuple[jax.Array, jax.Array], left: bool, at: Any) -> Known:
    """What is known of a run of layers with the rows that a product added, (layers, rows, n).

    They are written once, where all layers have been through: a loop that wrote into what it reads would copy it.
    """
    if isinstance(known, HaarKnown):
        pair = ("s", "t") if left else ("t", "s")
    else:
        pair = ("q", "z") if left else ("p", "y")
    at = jnp.asarray(at, jnp.int32)
    start = (jnp.zeros_like(at), at, jnp.zeros_like(at))
    longer: dict[str, Any] = {
        name: jax.lax.dynamic_update_slice(getattr(known, name), new, start)
        for name, new in zip(pair, rows, strict=True)
    }
    return dataclasses.replace(known, **longer)


def _row(frame: jax.Array, i: Any) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(frame, i)


def _join(key: jax.Array, frame: jax.Array, w: jax.Array, i: Any) -> tuple[jax.Array, jax.Array]:
    """The length of `w` beside the rows of the frame, and the frame with its direction, or a random one, as row i.

    A random direction goes on where a subspace is closed, as when singular values are equal; 0 if there is no more.
    """
    _, length, new = resolve(w, frame)
    _, _, other = resolve(normals(key, 1, frame.shape[1], frame.dtype), frame)
    new = jnp.where(jnp.any(new != 0), new, other)
    return length[0, 0], jax.lax.dynamic_update_index_in_dim(frame, new[0], i, 0)


def start(seed: jax.Array, root: jax.Array, data: Any, program: Lanczos, room: int) -> tuple[State, Scaled]:
    """`Lanczos.start` of a seed."""
    return program.start(ensemble.keys_of(seed[None], root)[0], data, room)


def step(seed: jax.Array, root: jax.Array, state: State, network: Network, program: Lanczos) -> Any:
    """`Lanczos.step` of a seed, whose state is not kept."""
    return program.step(ensemble.keys_of(seed[None], root)[0], state, network)


@functools.cache
def _compiled(platform: str) -> tuple[Any, Any]:
    """`start` and `step`; a step writes its rows into the arrays that it is given."""
    options = compiling.options(platform) or None
    return (
        jax.jit(start, static_argnames=("program", "room"), compiler_options=options),
        jax.jit(step, static_argnames="program", donate_argnames="state", compiler_options=options),
    )


def _with_room(state: State, more: int) -> State:
    """The same with room for so many more steps; one array after the other, each deleted when it is copied."""

    def longer(array: jax.Array, rows: int) -> jax.Array:
        out = jnp.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, rows), (0, 0)])
        out.block_until_ready()
        array.delete()
        return out

    def wider(known: Known) -> Known:
        rows = 2 * more if isinstance(known, HaarKnown) else more
        return jax.tree.map(lambda v: longer(v, rows) if v.ndim == 3 else v, known)

    known = tuple(wider(k) for k in state.known)
    return State(known, state.slopes, longer(state.u, more), longer(state.v, more), state.steps)


def singular_values(alphas: list[Scaled], betas: list[Scaled]) -> tuple[np.ndarray, np.ndarray, int]:
    """Those of B, descending, their errors, and the exponent of both, from one alpha more than betas."""
    every = (*alphas, *betas)
    mantissas, exponents = np.asarray([s.mantissa for s in every]), np.asarray([s.exponent for s in every])
    top = int(np.max(exponents, initial=-(1 << 30), where=mantissas > 0)) if (mantissas > 0).any() else 0
    alpha, beta = np.split(np.ldexp(mantissas.astype(np.float64), exponents - top), [len(alphas)])
    m = len(beta)
    if not np.isfinite(mantissas).all():
        return np.full(m, np.nan), np.full(m, np.nan), 0
    b = np.zeros((m + 1, m))
    b[np.arange(m), np.arange(m)], b[np.arange(1, m + 1), np.arange(m)] = alpha[:m], beta
    left, values, _ = np.linalg.svd(b, full_matrices=False)
    return values, alpha[m] * np.abs(left[m]), top


def log_singular_values(
    program: Lanczos, network: Network, inputs: Inputs, seeds: Iterable[int], root: int, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Natural logs of the `count` largest singular values, descending, one row a seed (-inf for 0); bounds of the
    errors of these logs; and the steps of each seed.

    Warns where errors are above `TOLERANCE` after `most_steps`.
    """
    shapes = [w.shape for w in program.weights]
    most = most_steps(count, min(shapes[0][0], shapes[-1][1]))
    rows = [
        _of_seed(program, (network, inputs), np.uint32(seed), np.uint32(root), count, most) for seed in seeds
    ]
    logs, errors, steps = (np.stack(v) for v in zip(*rows, strict=True))
    late = ~(errors <= -np.log1p(-TOLERANCE)).all(axis=1) & ~np.isnan(errors).any(axis=1)
    if late.any():
        worst = np.max(errors[late])
        warnings.warn(
            f"`simulate(jacobian={count})`: singular values of {late.sum()} of {len(late)} networks are not within "
            f"{TOLERANCE:g} after {most} steps: their logs are off by {worst:.2g} at most, as "
            f"extra['jacobian_log_errors'] says of each. More values take more steps: jacobian={2 * count} takes up "
            f"to {most_steps(2 * count, min(shapes[0][0], shapes[-1][1]))}.",
            UserWarning,
            stacklevel=3,
        )
    return logs, errors, steps


def _of_seed(
    program: Lanczos, data: tuple[Network, Inputs], seed: np.uint32, root: np.uint32, count: int, most: int
) -> tuple[np.ndarray, np.ndarray, int]:
    first, then = _compiled(jax.default_backend())
    room = min(_ROOM, most)
    state, alpha = first(seed, root, data, program, room)
    alphas, betas = [jax.device_get(alpha)], []
    for m in range(1, most + 1):
        if m > room:
            more = min(room, most - room)
            state, room = _with_room(state, more), room + more
        state, found = then(seed, root, state, data[0], program)
        beta, alpha = jax.device_get(found)
        alphas.append(alpha)
        betas.append(beta)
        values, bounds, exponent = singular_values(alphas, betas)
        values, bounds = values[:count], bounds[:count]
        if m >= count and not (bounds > TOLERANCE * values).any():
            break
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values) + exponent * np.log(2.0)
        errors = -np.log1p(-np.minimum(bounds / values, 1))
    return logs, np.where(bounds == 0, 0.0, errors), m
