"""One matrix used many times: joint laws against matrices that NumPy draws, and every product against `materialize`."""

import dataclasses
from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import other_law, same_law

import jaxinit as ji
from jaxinit.implicit import _frames, _known, _tied

SAMPLES = 20_000
STEPS = 3
SCALE = 0.6
CASES = [("gaussian", (4, 6)), ("haar", (6, 4)), pytest.param("haar", (5, 5), marks=pytest.mark.slow)]
LAWS = ["gaussian", "haar"]


class Drawn:
    """The interface of `TiedMatrix` over a matrix that is there, or a batch of them."""

    def __init__(self, w: jax.Array | np.ndarray) -> None:
        self.w = w

    def right(self, x: jax.Array | np.ndarray) -> tuple:
        return x @ self.w, self

    def left(self, y: jax.Array | np.ndarray) -> tuple:
        return y @ self.w.swapaxes(-1, -2), self

    def materialize(self) -> jax.Array | np.ndarray:
        return self.w


@cache
def matrices(law: str, shape: tuple[int, int]) -> np.ndarray:
    """SAMPLES of them, by NumPy: Haar by the factors Q whose R has a positive diagonal (Mezzadri 2007)."""
    rng = np.random.default_rng((7, *shape))
    if law == "gaussian":
        return SCALE * rng.normal(size=(SAMPLES, *shape))
    q, r = np.linalg.qr(rng.normal(size=(SAMPLES, *[max(shape)] * 2)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return SCALE * q[:, : shape[0], : shape[1]]


def implicit(law: str, key: jax.Array, shape: tuple[int, int]):
    return ji.implicit.tied(key, shape, SCALE, capacity=16, law=law)


def walk(w, x: jax.Array, tanh: Callable = jnp.tanh) -> tuple[list, list]:
    """Products on both sides, each of arguments that depend nonlinearly on all before: (rights, lefts) as pairs."""
    y1, w = w.right(x)
    d1 = tanh(3 * y1) + 0.3
    u1, w = w.left(d1)
    v2 = tanh(2 * u1) - 0.5 * x + x[::-1]
    y2, w = w.right(v2)
    d2 = y2 * y1 - 0.2
    u2, w = w.left(d2)
    return [(x, y1), (v2, y2)], [(d1, u1), (d2, u2)], w


def functionals(y1, u1, y2, u2, whole) -> dict[str, np.ndarray]:
    total = {name: np.sum(v, (1, 2)) for name, v in (("y", y2**2), ("u", u2**2), ("W", whole**2))}
    return {
        "y1": y1[:, 0, 0], "u1": u1[:, 0, -1], "y2": y2[:, 1, 0], "u2": u2[:, 0, 0],
        "|y2|^2": total["y"], "|u2|^2": total["u"], "|u2|/|y2|": total["u"] / total["y"],
        "y1.y2": np.sum(y1 * y2, (1, 2)), "u1.u2": np.sum(u1 * u2, (1, 2)), "u2 y1": u2[:, 1, 0] * y1[:, 1, 0],
        "W": whole[:, 0, 0], "det": np.linalg.det(whole[:, :4, :4]), "W u2": whole[:, 1, 1] * u2[:, 0, 1],
        "|W|^2": np.round(total["W"], 3),
    }  # fmt: skip


def inputs(n: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, n)), jnp.float32)


def sample(one: Callable, seed: int) -> dict[str, np.ndarray]:
    keys = jax.random.split(jax.random.key(seed), SAMPLES)
    return {k: np.asarray(v) for k, v in jax.jit(jax.vmap(one))(keys).items()}


def walks(make: Callable, law: str, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    def one(key: jax.Array) -> tuple:
        ((_, y1), (_, y2)), ((_, u1), (_, u2)), w = walk(make(law, key, shape), inputs(shape[0]))
        return y1, u1, y2, u2, w.materialize()

    keys = jax.random.split(jax.random.key(0), SAMPLES)
    return functionals(*map(np.asarray, jax.jit(jax.vmap(one))(keys)))


@cache
def truth(law: str, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    x, whole = np.asarray(inputs(shape[0])), matrices(law, shape)
    ((_, y1), (_, y2)), ((_, u1), (_, u2)), _ = walk(Drawn(whole), x, np.tanh)
    return functionals(y1, u1, y2, u2, whole)


@pytest.mark.parametrize(("law", "shape"), CASES, ids=str)
def test_joint_law_of_products_on_both_sides(law: str, shape: tuple[int, int]) -> None:
    same_law(walks(implicit, law, shape), truth(law, shape))


@pytest.mark.parametrize("law", LAWS)
def test_twin_a_forgotten_projection_is_seen(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if law == "gaussian":
        monkeypatch.setattr(_known._frames, "project_out", lambda v, frame: v)
    else:
        right = _known.uniform_frame
        monkeypatch.setattr(_known, "uniform_frame", lambda *a, avoid, **k: right(*a, **k))
    wrong = walks(implicit, law, (5, 5))
    monkeypatch.undo()
    other_law(wrong, truth(law, (5, 5)))


def test_twin_a_fresh_matrix_at_each_use_is_seen() -> None:
    class Fresh(Drawn):
        """One after the other: of every matrix of the batch, those after it."""

        def right(self, x: np.ndarray) -> tuple:
            return x @ self.w, Fresh(np.roll(self.w, 1, axis=0))

        def left(self, y: np.ndarray) -> tuple:
            return y @ self.w.swapaxes(1, 2), Fresh(np.roll(self.w, 1, axis=0))

    start = Fresh(matrices("gaussian", (5, 5)))
    ((_, y1), (_, y2)), ((_, u1), (_, u2)), w = walk(start, np.asarray(inputs(5)), np.tanh)
    other_law(functionals(y1, u1, y2, u2, w.materialize()), truth("gaussian", (5, 5)))


# --- reverse mode ---------------------------------------------------------------------------------------------


def recurrent(w, h: jax.Array) -> jax.Array:
    """h <- tanh(1.5 h W), STEPS times; a loss of the end and of the way."""
    if isinstance(w, Drawn):
        total = jnp.zeros(())
        for _ in range(STEPS):
            h = jnp.tanh(1.5 * w.right(h)[0])
            total = total + jnp.sum(h**3)
        return total + jnp.sum(h**2)

    def step(carry: tuple, _: None) -> tuple:
        h, w = carry
        z, w = w.right(h)
        h = jnp.tanh(1.5 * z)
        return (h, w), jnp.sum(h**3)

    (h, w), way = jax.lax.scan(step, (h, w), None, length=STEPS)
    way, h = w.settle((way, h))
    return jnp.sum(way) + jnp.sum(h**2)


def of_gradients(loss: np.ndarray, dx: np.ndarray) -> dict[str, np.ndarray]:
    square = np.sum(dx**2, (1, 2))
    return {
        "loss": loss, "dx": dx[:, 0, 0], "|dx|^2": square, "dx.x": np.sum(dx * np.asarray(inputs(5)), (1, 2)),
        "dx.dx": np.sum(dx[:, 0] * dx[:, 1], 1), "loss |dx|": loss * square, "dx^2 / loss": dx[:, 1, 2] ** 2 / loss,
    }  # fmt: skip


def gradients(law: str) -> dict[str, np.ndarray]:
    def one(key: jax.Array) -> tuple:
        return jax.value_and_grad(lambda h: recurrent(implicit(law, key, (5, 5)), h))(inputs(5))

    keys = jax.random.split(jax.random.key(2), SAMPLES)
    return of_gradients(*map(np.asarray, jax.jit(jax.vmap(one))(keys)))


@cache
def true_gradients(law: str) -> dict[str, np.ndarray]:
    """By the chain rule, written out."""
    w, states = matrices(law, (5, 5)), [np.asarray(inputs(5))]
    for _ in range(STEPS):
        states.append(np.tanh(1.5 * states[-1] @ w))
    loss = sum(np.sum(h**3, (1, 2)) for h in states[1:]) + np.sum(states[-1] ** 2, (1, 2))
    back = 2 * states[-1]
    for h in states[:0:-1]:
        back = 1.5 * ((back + 3 * h**2) * (1 - h**2)) @ w.swapaxes(1, 2)
    return of_gradients(loss, back)


@pytest.mark.parametrize("law", ["gaussian", pytest.param("haar", marks=pytest.mark.slow)])
def test_gradient_of_a_recurrent_network(law: str) -> None:
    same_law(gradients(law), true_gradients(law))


def test_twin_a_backward_pass_that_does_not_know_the_forward_one_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forgetful(self, x):
        nothing = jax.tree.map(jnp.zeros_like, self.known)
        return _tied._settle(dataclasses.replace(nothing, counts=self.known.counts), x)

    monkeypatch.setattr(ji.implicit.TiedMatrix, "settle", forgetful)
    other_law(gradients("gaussian"), true_gradients("gaussian"))


@pytest.mark.parametrize("law", LAWS)
def test_gradient_is_that_of_the_materialized_matrix(law: str) -> None:
    """The cotangent of the first state knows both passes: a matrix drawn given it has this loss and gradient."""
    w, x = implicit(law, jax.random.key(5), (7, 7)), inputs(7)

    def loss(known, scale, h: jax.Array) -> jax.Array:
        return recurrent(ji.implicit.TiedMatrix(known, w.key, scale, w.shape, law, w.capacity), h)

    scale = jnp.float32(SCALE)
    value, (known, ds, dx) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(w.known, scale, x)
    whole = ji.implicit.TiedMatrix(known, w.key, SCALE, w.shape, law, w.capacity).materialize()
    want, want_dx = jax.value_and_grad(lambda h: recurrent(Drawn(whole), h))(x)
    np.testing.assert_allclose(value, want, rtol=1e-4)
    np.testing.assert_allclose(dx, want_dx, atol=1e-4 * float(jnp.abs(want_dx).max()))
    want_ds = jax.grad(lambda s: recurrent(Drawn(whole * s), x))(jnp.float32(1.0)) / SCALE
    np.testing.assert_allclose(ds, want_ds, rtol=1e-3)


def test_gradient_without_settling_is_nan() -> None:
    w = implicit("gaussian", jax.random.key(0), (5, 5))
    assert jnp.isnan(jax.jit(jax.grad(lambda x: jnp.sum(w.right(x)[0])))(inputs(5))).all()


# --- identities, limits, refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shape", [(7, 7), (5, 8), (40, 30)], ids=str)
def test_products_are_those_of_the_materialized_matrix(law: str, shape: tuple[int, int]) -> None:
    """Also of inputs that were seen before, and of as many as there are dimensions."""

    @jax.jit
    def run(key: jax.Array) -> tuple:
        w = ji.implicit.tied(key, shape, SCALE, capacity=24, law=law)
        rights, lefts, w = walk(w, inputs(shape[0]))
        more = jnp.concatenate(
            [rights[1][0], inputs(shape[0]), jnp.zeros((1, shape[0])), 1e-6 * rights[1][0]]
        )
        y, w = w.right(more)
        v, w = w.left(jnp.concatenate([lefts[0][0], y[:1] * 3]))
        return (
            [*rights, (more, y)],
            [*lefts, (jnp.concatenate([lefts[0][0], y[:1] * 3]), v)],
            w.materialize(),
            w,
        )

    rights, lefts, whole, w = run(jax.random.key(2))
    for x, y in rights:
        np.testing.assert_allclose(y, x @ whole, atol=3e-5)
    for y, v in lefts:
        np.testing.assert_allclose(v, y @ whole.T, atol=3e-5 * float(1 + jnp.abs(y).max()))
    if law == "haar":
        small = whole @ whole.T if shape[0] <= shape[1] else whole.T @ whole
        np.testing.assert_allclose(small, SCALE**2 * np.eye(min(shape)), atol=1e-5)
    assert np.isfinite(np.asarray(w.known.counts)).all()


def test_near_equal_inputs_of_different_calls_keep_their_distance() -> None:
    n, angle = 4096, 1e-3
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(n, 2)))[0].T * np.sqrt(n)
    x = jnp.asarray(np.stack([u[0], np.cos(angle) * u[0] + np.sin(angle) * u[1]]), jnp.float32)
    w = ji.implicit.tied(jax.random.key(0), (n, n), n**-0.5, capacity=2)

    @jax.jit
    def both(x: jax.Array, w) -> tuple[jax.Array, jax.Array]:
        a, w = w.right(x[:1])
        return a, w.right(x[1:])[0]

    a, b = both(x, w)
    np.testing.assert_allclose(jnp.sum((b - a) ** 2) / jnp.sum(a**2), angle**2, rtol=0.15)


def test_resolve_of_what_is_known_already() -> None:
    frame, _ = _frames.orthonormalize(inputs(6))
    x = jnp.concatenate([3.0 * frame, jnp.ones((1, 6))])
    a, b, new = jax.jit(_known.resolve)(x, frame)
    np.testing.assert_allclose(_frames.combine(a, frame) + _frames.combine(b, new), x, atol=1e-6)
    assert (np.asarray(new[:2]) == 0).all()
    np.testing.assert_allclose(new @ frame.T, np.zeros((3, 2)), atol=1e-6)
    np.testing.assert_allclose(jnp.sum(new[2] ** 2), 1.0, rtol=1e-6)


def test_more_than_the_capacity() -> None:
    w = ji.implicit.tied(jax.random.key(0), (50, 50), 0.1, capacity=3)
    y, w = w.right(jnp.ones((2, 50)))
    with pytest.raises(ValueError, match="at least the rows of all products on a side: 2 . 2"):
        w.right(jnp.ones((2, 50)))
    late = jax.jit(lambda w: w.right(jnp.ones((2, 50)))[0])(w)
    assert jnp.isnan(late).all() and jnp.isfinite(y).all()


@pytest.mark.parametrize("law", LAWS)
def test_lowers_for_accelerators(law: str) -> None:
    def f(key: jax.Array, x: jax.Array) -> jax.Array:
        return jax.grad(lambda h: recurrent(ji.implicit.tied(key, (64, 64), 0.1, capacity=6, law=law), h))(x)

    traced = jax.jit(f).trace(jax.random.key(0), jnp.ones((2, 64)))
    assert traced.lower(lowering_platforms=("cuda", "tpu"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"shape": (3,)}, ValueError, r"\(n_in, n_out\)"),
        ({"scale": 0.0}, ValueError, "at least 1.17549e-38"),
        ({"scale": 1e300}, ValueError, r"at most 3.40282e\+38"),
        ({"capacity": 0}, ValueError, "at least 1"),
        ({"capacity": 10**30}, ValueError, "at most 2147483647"),
        ({"capacity": 10**8, "shape": (10**6, 10**6)}, ValueError, "fit into memory .1,490,116 GiB"),
        ({"shape": (10**30, 4)}, ValueError, "both from 1 to 2147483647"),
        ({"dtype": jnp.ones(3)}, TypeError, "its name, or None"),
        ({"dtype": jnp.bfloat16}, ValueError, "Cast rows of other dtypes to float32"),
        ({"dtype": "float64"}, ValueError, "jax_enable_x64"),
        ({"dtype": 3}, TypeError, "its name, or None"),
        ({"law": "orthogonal"}, ValueError, "'gaussian' or 'haar'"),
        ({"key": 3}, TypeError, "jax.random key"),
    ],
)
def test_bad_input(change: dict, error: type, words: str) -> None:
    given = {"key": jax.random.key(0), "shape": (3, 4), "scale": 1.0, "capacity": 2, **change}
    with pytest.raises(error, match=words):
        ji.implicit.tied(**given)


def test_bad_products() -> None:
    w = ji.implicit.tied(jax.random.key(0), (3, 4), 1.0, capacity=4)
    with pytest.raises(ValueError, match=r"\(\.\.\., 4\)"):
        w.left(jnp.ones((1, 3)))
    with pytest.raises(TypeError, match=r"dtype float32.*Cast it to float32, and the product back"):
        w.right(jnp.ones((1, 3), jnp.bfloat16))
