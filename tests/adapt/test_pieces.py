"""Programs in pieces: the values of one program, as few compilations as there are different pieces."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo_models as zoo

from jaxinit.adapt._pieces import Pieces
from jaxinit.probe import products

X = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)), jnp.float32)
W = jnp.asarray(np.random.default_rng(4).normal(size=(5, 3, 3)), jnp.float32)


def stack(shift: Any, scale: float = 2.0) -> Any:
    """Layers with an operation of each kind: a custom derivative, a loop and a branch; `shift` is held by the loop."""

    def layer(w: Any, x: Any) -> Any:
        x = jax.nn.relu(x @ w) + jnp.tanh(x)
        x, _ = jax.lax.scan(lambda c, each: (c * 0.5 + each + shift[None], None), x, jnp.stack([x, x]))
        return jax.lax.cond(x.sum() > 0, lambda v: v, lambda v: -v, x) / scale

    def whole(w: Any, x: Any) -> Any:
        sizes = {}
        for n, each in enumerate(w):
            x = layer(each, x)
            sizes[n] = (x**2).sum(), jnp.float32(n)
        unused = jnp.linalg.svd(x)  # noqa: F841
        return sizes, x

    return whole


def test_the_values_of_one_program() -> None:
    whole = stack(jnp.arange(3.0))
    pieces = Pieces(whole, list(W), X)
    for w in (W, -W):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), pieces(list(w), X), whole(list(w), X)
        )
    assert len(pieces.programs) == 6  # five layers, and the value returned beside the last one's size
    assert len(set(pieces.programs)) < 5


def test_what_a_piece_passes_on_as_a_power_of_its_parameters() -> None:
    """Held against a run with other parameters; where it is no power nothing is claimed."""

    def linear(w: Any, b: Any, x: Any) -> Any:
        h = x @ w + b
        return h.sum(), jnp.tanh(h).sum()

    def quadratic(w: Any, b: Any, x: Any) -> Any:
        h = jnp.maximum(x @ w + b, 0) ** 2
        return h.sum(), jnp.tanh(h).sum()

    def looped(w: Any, b: Any, x: Any) -> Any:
        h, inside = jax.lax.scan(lambda c, _: (c @ w, c), x + b, None, length=2)
        return h.sum(), jnp.tanh(inside).sum()

    b = jnp.zeros((1, 3))
    for function, powers in ((linear, [1.0]), (quadratic, [2.0]), (looped, None)):
        pieces = Pieces(function, W[0], b, X)
        found = pieces.powers(0, {0}, {1})
        assert (found if found is None else list(found.values())) == powers
        assert pieces.powers(0, {0}, set()) is None  # twin: a bias that is not 0
        once, again = (pieces.begin(s * W[0], b, X) for s in (1.0, 3.0))
        for values in (once, again):
            pieces.run(0, values)
        for n, power in (found or {}).items():
            assert np.allclose(again[n], 3.0**power * once[n], rtol=1e-5)


def test_what_differs_is_not_shared() -> None:
    """Not where a number or a shape is another one; arrays that a program holds are handed to it."""
    shift = jnp.arange(3.0)
    base = Pieces(stack(shift), [W[0]], X)
    same = Pieces(stack(shift + 0), [W[0]], X)
    assert same.programs == base.programs
    for other, x, shared in (
        (stack(shift + 1), X, True),
        (stack(shift, 3.0), X, False),
        (stack(shift), X[:2], False),
    ):
        pieces = Pieces(other, [W[0]], x)
        assert (pieces.programs[0] is base.programs[0]) == shared
        assert np.allclose(pieces([W[0]], x)[1], other([W[0]], x)[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "partial"), [(zoo.Stack(), True), (zoo.Language(), False)], ids=["partial", "forward"]
)
def test_figures_told_on_the_host(model: Any, partial: bool) -> None:
    x, key = (zoo.TOKENS if isinstance(model, zoo.Language) else zoo.X), jax.random.key(0)
    found = products(model, (x,))
    params, state = jax.jit(found.model.init)(key, (x,))
    leaves = jax.tree.leaves(params)
    leaves[0] = leaves[0] * 1e25  # squares that float32 does not hold
    measure = found.partial if partial else found.forward
    compiled = jax.jit(measure)(leaves, state, (x,), key)
    sums = Pieces(lambda *args: found.sums(*args, partial=partial), leaves, state, (x,), key)
    host = found.told(sums(leaves, state, (x,), key))
    for name, value in compiled._asdict().items():
        assert (value is None) == (getattr(host, name) is None)
        if value is not None:
            np.testing.assert_allclose(getattr(host, name), value, rtol=1e-4, atol=1e-5, err_msg=name)
