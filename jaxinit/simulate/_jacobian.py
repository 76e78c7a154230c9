"""Singular values of the input-output Jacobian of each network, from the weights that the simulation draws.

Where weights are too many to be drawn, `_lanczos` has the largest of them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import ensemble
from jaxinit._core import checks
from jaxinit._core.normals import vector
from jaxinit._core.scaled import exponent_of, normalize, pow2
from jaxinit._core.struct import record, static
from jaxinit.network import Network
from jaxinit.simulate._dense import _add_bias, _run
from jaxinit.simulate._inputs import Inputs
from jaxinit.simulate._lanczos import bytes_of, most_steps
from jaxinit.simulate._signal import Nonlinearity
from jaxinit.simulate._weights import IMPLICIT_LAWS, LayerKeys, Weights, law_of

#: Bytes that one network's Jacobian, tangents and weights may take together.
_MOST_BYTES = 1 << 30


@record
class Jacobian:
    """`(key, (network, inputs)) -> (J^T * 2^-exponent, exponent)`, J = dz^L / dx at the first input.

    The network is the one that `Dense` measures for the same key, if its weights are materialized.
    """

    weights: tuple[Weights, ...] = static()
    nonlinearity: Nonlinearity = static()
    biased: bool = static()

    def __call__(self, key: jax.Array, data: tuple[Network, Inputs]) -> tuple[jax.Array, jax.Array]:
        network, inputs = data
        every = jax.random.split(key, (len(self.weights) + 1, 4))  # as in Dense: the same networks
        keys = LayerKeys.of(every[1:], network.tied)
        if network.tied:
            forward = jnp.broadcast_to(keys.forward[:1], keys.forward.shape)
            keys = dataclasses.replace(keys, forward=forward)
        x = inputs.draw(every[0, 0])[:1].astype(jnp.float64)
        h, exponent = normalize(x, jnp.zeros(1, jnp.int32))
        tangents = jnp.eye(x.shape[1], dtype=jnp.float64)
        carry = (h, exponent, jnp.ones_like(h), tangents, jnp.zeros((), jnp.int32))
        start = 0
        for weights, group in itertools.groupby(self.weights):
            count = len(list(group))
            layers = jax.tree.map(lambda k, a=start, b=start + count: k[a:b], keys)
            carry, _ = _run(self._step(weights, network), carry, layers)
            start += count
        return carry[3], carry[4]

    def _step(self, weights: Weights, network: Network) -> Any:
        def step(carry: Any, keys: LayerKeys) -> Any:
            h, exponent, slope, tangents, scale = carry
            w = weights.draw(keys.forward, network).astype(jnp.float64)
            z = _matmul(h, w)
            if self.biased:
                b = vector(keys.bias, z.shape[1]).astype(jnp.float64)
                b = b * jnp.sqrt(jnp.asarray(network.bias_variance, jnp.float64))
                z, exponent = _add_bias(z, exponent, b)
            tangents = _matmul(tangents * slope, w)
            shift = exponent_of(tangents.ravel(), axis=0)
            tangents = tangents * pow2(-shift, tangents.dtype)
            z, exponent = normalize(z, exponent)
            value, value_exponent, slope = self.nonlinearity(z, exponent)
            return (*normalize(value, value_exponent), slope, tangents, scale + shift), None

        return step


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="program")
def _jacobian(seed: jax.Array, root: jax.Array, data: Any, program: Jacobian) -> tuple[jax.Array, jax.Array]:
    return program(ensemble.keys_of(seed[None], root)[0], data)


def plan(jacobian: Any, network: Network, sampler: str, approximate: bool, inputs: int) -> tuple[int, str]:
    """How many singular values are wanted (0: none), and the sampler that has them; raises when they cannot be had.

    "materialized": all of J, decomposed. "implicit": the largest few, by Lanczos. "auto" takes the first where it fits
    into `_MOST_BYTES`, and else the second, if the number is given and the law allows it.
    """
    if jacobian is False:
        return 0, sampler
    where, rank = "simulate", min(network.shapes[0][0], network.widths[-1])
    count = rank if jacobian is True else checks.integer(where, "jacobian", jacobian, at_least=1)
    if count > rank:
        raise checks.bad(
            where, "jacobian", f"True or at most {rank}, the number of singular values", jacobian
        )
    if sampler == "radial":
        raise checks.bad(
            where, "jacobian", "False with sampler='radial', which draws lengths only", jacobian,
            "Use sampler='auto'.",
        )  # fmt: skip
    if sampler == "implicit" and jacobian is True:
        raise checks.bad(
            where, "jacobian", "how many of the largest values, not all, with sampler='implicit', which forms no "
            "weights", jacobian, "Pass jacobian=3, say, or sampler='materialized' or 'auto'.",
        )  # fmt: skip
    if not network.chain:
        raise checks.bad(
            where,
            "jacobian",
            "False for networks with places, skips, normalization, dropout or inputs at every step",
            jacobian,
        )
    if sampler == "implicit" and network.tied:
        raise checks.bad(
            where, "jacobian", "False for tied weights with sampler='implicit'", jacobian,
            "Use sampler='materialized' or 'auto'.",
        )  # fmt: skip
    wide, widest = network.shapes[0][0], max(max(shape) for shape in network.shapes)
    needed = 8 * (3 * wide * widest + 2 * widest * widest)
    if sampler != "implicit" and needed <= _MOST_BYTES:
        return count, "materialized"
    laws = {law_of(network, shape) for shape in set(network.shapes)}
    exact = laws <= {*IMPLICIT_LAWS, *(["iid"] if approximate else [])} and not network.tied
    if sampler != "implicit" and (jacobian is True or sampler == "materialized" or not exact):
        way_out = "Use a smaller width; jaxinit.spectra.density gives the limit of infinite width."
        if exact:
            way_out = (
                "Pass the number of the largest that you need, such as jacobian=3, with sampler='auto'. "
                + way_out
            )
        raise checks.bad(
            where, "jacobian", f"left out for wide networks: the Jacobian here needs {needed / 2**30:.1f} GiB "
            f"of at most {_MOST_BYTES / 2**30:.0f}", jacobian, way_out,
        )  # fmt: skip
    _check_room(network, jacobian, most_steps(count, rank), inputs)
    return count, "implicit"


def _check_room(network: Network, jacobian: int, steps: int, inputs: int) -> None:
    """Raises where what Lanczos knows of the matrices after all its steps does not fit into memory."""
    needed, room = bytes_of(network.shapes, inputs, steps), ensemble.available(jax.local_devices()[0])
    if room is not None and needed > room:
        raise checks.bad(
            "simulate", "jacobian", f"a number of values whose products fit into memory: {steps} steps keep "
            f"{ensemble.amount(needed)}, and {ensemble.amount(room)} are available", jacobian,
            "Ask for fewer values, which take fewer steps, or use a smaller width or depth.",
        )  # fmt: skip


def log_singular_values(
    program: Jacobian, network: Network, inputs: Inputs, seeds: Iterable[int], root: int, count: int
) -> np.ndarray:
    """Natural logs of the `count` largest singular values, descending, one row a seed; -inf for 0.

    Products and decompositions are in float64, whatever the x64 flag; what is below 1e-15 of a network's
    largest singular value is rounding and reads as such.
    """
    out = []
    with jax.enable_x64(True):
        for seed in seeds:
            found = _jacobian(np.uint32(seed), np.uint32(root), (network, inputs), program)
            tangents, exponent = (np.asarray(v) for v in found)
            values = np.linalg.svd(tangents, compute_uv=False)[:count]
            with np.errstate(divide="ignore"):
                out.append(np.log(values) + float(exponent) * np.log(2.0))
    return np.stack(out)
