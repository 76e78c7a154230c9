"""The loops of nnx against the same modules one call after the other, by value."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxinit.probe import probe

NAMES = ["second_moment", "mean", "correlation", "grad_second_moment"]
X = np.random.default_rng(0).normal(size=(3, 4, 8)).astype("f4")


class Layer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return jnp.tanh(self.fc(x))


@nnx.split_rngs(splits=3)
@nnx.vmap(in_axes=(0,), out_axes=0)
def stacked(rngs: nnx.Rngs) -> Layer:
    return Layer(rngs)


@nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
def through(x: Any, layer: Layer) -> Any:
    return layer(x)


class Stack(nnx.Module):
    def __init__(self, unrolled: bool, rngs: nnx.Rngs) -> None:
        self.layers, self.unrolled = stacked(rngs), unrolled

    def __call__(self, x: Any) -> Any:
        if not self.unrolled:
            return through(x, self.layers)
        graph, state = nnx.split(self.layers)
        for n in range(3):
            x = nnx.merge(graph, jax.tree.map(lambda v, n=n: v[n], state))(x)
        return x


class Recurrent(nnx.Module):
    def __init__(self, unrolled: bool, rngs: nnx.Rngs) -> None:
        self.rnn, self.unrolled = nnx.RNN(nnx.LSTMCell(8, 8, rngs=rngs), rngs=rngs), unrolled

    def __call__(self, x: Any) -> Any:
        if not self.unrolled:
            return self.rnn(x)
        carry, out = (jnp.zeros((3, 8)), jnp.zeros((3, 8))), []
        for t in range(x.shape[1]):
            carry, y = self.rnn.cell(carry, x[:, t])
            out.append(y)
        return jnp.stack(out, axis=1)


@pytest.mark.parametrize(
    ("module", "x", "sites"), [(Stack, X[:, 0], 3), (Recurrent, X, 32)], ids=["scan", "RNN"]
)
def test_a_loop_has_the_figures_of_its_iterations(module: Any, x: Any, sites: int) -> None:
    loop, unrolled = (
        probe(
            lambda rngs, u=u: module(u, rngs), x, seeds=1, sites="ops", record=NAMES,
            loss=lambda out: jnp.sum(out**2) / 2,
        )
        for u in (False, True)
    )  # fmt: skip
    assert len(loop.sites) == len(unrolled.sites) == sites
    for name in NAMES:
        np.testing.assert_allclose(loop[name].mean, unrolled[name].mean, rtol=2e-5, atol=1e-7)
    if module is Recurrent:
        one, two = (r.parameters.gradient_norm.mean for r in (loop, unrolled))
        np.testing.assert_allclose(one, two, rtol=2e-5)
