"""Implicit matrices against matrices that NumPy draws: joint laws of forward and backward products."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import other_law, same_law

import jaxinit as ji
from jaxinit.implicit import _frames, _gaussian, _haar

SAMPLES = 20_000
SHAPES = [(6, 6), (4, 7), (7, 4), (3, 3), (1, 5), (5, 1)]
INPUTS = {
    "generic": lambda n: np.random.default_rng(1).normal(size=(2, n)),
    "equal": lambda n: np.ones((2, n)),
    "one is zero": lambda n: np.stack([np.arange(1.0, n + 1), np.zeros(n)]),
    "single": lambda n: np.random.default_rng(2).normal(size=(1, n)),
}


def cotangent(y: jax.Array, tanh: Callable = jnp.tanh) -> jax.Array:
    """Depends on y as a network's cotangent may: nonlinearly, and across inputs."""
    return tanh(2 * y) + 0.5 * y[..., ::-1, :] ** 2 - 0.3


def functionals(y: np.ndarray, dx: np.ndarray) -> dict[str, np.ndarray]:
    """Scalars of each sample; products and ratios tie the passes together."""
    square, whole = np.sum(dx**2, (1, 2)), np.sum(y**2, (1, 2))
    return {
        "y": y[:, 0, 0],
        "|y|^2": np.sum(y[:, -1] ** 2, 1),
        "y.y": np.sum(y[:, 0] * y[:, -1], 1),
        "dx": dx[:, 0, -1],
        "|dx|^2": square,
        "dx.dx": np.sum(dx[:, 0] * dx[:, -1], 1),
        "dx y": dx[:, -1, 0] * y[:, 0, 0],
        "|dx|^2 |y|^2": square * whole,
        "|dx|^2 / |y|^2": square / whole,
    }


def draws(products: Callable, x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """SAMPLES of `products(key, x) -> y, dx`, by one program a function and shape."""
    keys = jax.random.split(jax.random.key(seed), SAMPLES)
    y, dx = batched(products)(keys, jnp.asarray(x, jnp.float32))
    return np.asarray(y), np.asarray(dx)


@cache
def batched(products: Callable) -> Callable:
    return jax.jit(jax.vmap(products, (0, None)))


def sample(products: Callable, x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    return functionals(*draws(products, x, seed))


@cache
def implicit(law: str, n_out: int) -> Callable:
    def products(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        make = ji.implicit.gaussian if law == "gaussian" else ji.implicit.haar
        y, pull = jax.vjp(make(key, (x.shape[1], n_out), 0.7), x)
        return y, pull(cotangent(y))[0]

    return products


@cache
def matrices(law: str, n_in: int, n_out: int) -> np.ndarray:
    """SAMPLES of them, by NumPy: Haar by the factors Q whose R has a positive diagonal (Mezzadri 2007)."""
    rng = np.random.default_rng((7, n_in, n_out))
    if law == "gaussian":
        return 0.7 * rng.normal(size=(SAMPLES, n_in, n_out))
    q, r = np.linalg.qr(rng.normal(size=(SAMPLES, *[max(n_in, n_out)] * 2)))
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return 0.7 * q[:, :n_in, :n_out]


def drawn(law: str, x: np.ndarray, n_out: int) -> dict[str, np.ndarray]:
    """The same functionals of as many matrices."""
    w = matrices(law, x.shape[1], n_out)
    y = x @ w
    return functionals(y, cotangent(y, np.tanh) @ w.swapaxes(1, 2))


@pytest.mark.parametrize("law", ["gaussian", "haar"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_joint_law(law: str, shape: tuple[int, int]) -> None:
    x = INPUTS["generic"](shape[0])
    same_law(sample(implicit(law, shape[1]), x, 0), drawn(law, x, shape[1]))


@pytest.mark.parametrize("law", ["gaussian", "haar"])
@pytest.mark.parametrize("kind", ["equal", "one is zero", "single"])
def test_joint_law_of_degenerate_inputs(law: str, kind: str) -> None:
    x = INPUTS[kind](5)
    same_law(sample(implicit(law, 4), x, 2), drawn(law, x, 4))


@pytest.mark.parametrize("rows", [_frames.UNROLLED + 2, 8], ids=["loop", "householder"])
def test_joint_law_of_many_rows(rows: int) -> None:
    x = np.random.default_rng(5).normal(size=(rows, 6))
    for law in ("gaussian", "haar"):
        same_law(sample(implicit(law, 5), x, 4), drawn(law, x, 5))


# --- twins: each of these mistakes must be seen ---------------------------------------------------------------


def without_projection(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    there, back = jax.random.split(key)
    y, (q, g) = _gaussian.forward(there, x, 5, 0.7)
    d = cotangent(y)
    q_d, r_d = _frames.orthonormalize(d)
    fresh = jax.random.normal(back, (q_d.shape[0], q.shape[1]))
    return y, 0.7 * (d @ g.T @ q + _frames.combine(r_d, fresh))


def fresh_matrix_backward(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    there, back = jax.random.split(key)
    y, _ = _gaussian.forward(there, x, 5, 0.7)
    return y, cotangent(y) @ (0.7 * jax.random.normal(back, (x.shape[1], 5))).T


def known_part_only(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y, (q, g) = _gaussian.forward(key, x, 5, 0.7)
    return y, 0.7 * (cotangent(y) @ g.T @ q)


@pytest.mark.parametrize("wrong", [without_projection, fresh_matrix_backward, known_part_only])
def test_twin_wrong_backward(wrong: Callable) -> None:
    x = INPUTS["generic"](6)
    other_law(sample(wrong, x, 0), drawn("gaussian", x, 5))


def test_twin_gaussian_is_not_haar() -> None:
    def scaled_gaussian(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull = jax.vjp(ji.implicit.gaussian(key, (6, 6), 0.7 / np.sqrt(6)), x)
        return y, pull(cotangent(y))[0]

    x = INPUTS["generic"](6)
    other_law(sample(scaled_gaussian, x, 0), drawn("haar", x, 6))


def test_twin_haar_without_avoiding_the_seen_space() -> None:
    def wrong(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        there, back = jax.random.split(key)
        y, (q, u) = _haar.forward(there, x, 6, 0.7)
        d = cotangent(y)
        along = d @ u.T
        _, r_d = _frames.orthonormalize(d - along @ u)
        return y, 0.7 * (along @ q + _frames.combine(r_d, _haar.uniform_frame(back, 2, 6, x.dtype)))

    x = INPUTS["generic"](6)
    other_law(sample(wrong, x, 0), drawn("haar", x, 6))


def rounded(products: Callable) -> Callable:
    """Rows and products of bfloat16."""

    def of_rounded(key: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(v.astype(jnp.float32) for v in products(key, x.astype(jnp.bfloat16)))

    return of_rounded


def test_rows_of_16_bits_have_products_with_a_matrix_of_more() -> None:
    """Frames of bfloat16 would not be orthonormal: that of the twin, whose lengths scatter."""

    def drawn_wide(key: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        w = 0.7 * jax.random.orthogonal(key, 6)
        y = (x.astype(jnp.float32) @ w).astype(x.dtype)
        return y, (cotangent(y).astype(jnp.float32) @ w.T).astype(x.dtype)

    def narrow(key: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        there, back = jax.random.split(key)
        y, residual = _haar.forward(there, x, 6, jnp.asarray(0.7, x.dtype))
        return y, _haar.backward(back, residual, cotangent(y), 6, jnp.asarray(0.7, x.dtype))

    x = INPUTS["generic"](6)
    truth = sample(rounded(drawn_wide), x, 1)
    same_law(sample(rounded(implicit("haar", 6)), x, 0), truth)
    other_law(sample(rounded(narrow), x, 2), truth)


def test_rows_of_64_bits_keep_them() -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 20)))
        for law in ("gaussian", "haar"):
            y, dx = jax.jit(implicit(law, 20))(jax.random.key(0), x)
            assert y.dtype == dx.dtype == jnp.float64
            np.testing.assert_allclose(x @ dx.T, y @ cotangent(y).T, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(y @ y.T, 0.7**2 * x @ x.T, atol=1e-11)


# --- identities that hold draw by draw ------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["gaussian", "haar"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward_are_one_matrix(law: str, shape: tuple[int, int]) -> None:
    """<x_a, d_b W^T> = <x_a W, d_b> for all a, b."""
    for kind in ("generic", "equal", "one is zero"):
        x = INPUTS[kind](shape[0])
        for y, dx in zip(*(v[:5] for v in draws(implicit(law, shape[1]), x, 3)), strict=True):
            d = cotangent(y, np.tanh)
            scale = np.linalg.norm(x) * np.linalg.norm(dx) + np.linalg.norm(y) * np.linalg.norm(d)
            np.testing.assert_allclose(x @ dx.T, y @ d.T, atol=5e-6 * scale)


def test_haar_keeps_norms_and_angles_exactly() -> None:
    x, d = np.random.default_rng(0).normal(size=(2, 3, 1000)).astype(np.float32)

    @jax.jit
    def products(key: jax.Array, x: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull = jax.vjp(ji.implicit.haar(key, (1000, 1000)), x)
        return y, pull(d)[0]

    y, dx = products(jax.random.key(1), x, d)
    np.testing.assert_allclose(y @ y.T, x @ x.T, atol=2e-3)
    np.testing.assert_allclose(dx @ dx.T, d @ d.T, atol=2e-3)


@pytest.mark.parametrize("rows", [2, 3, 8, 9, 40])
def test_frames_are_orthonormal_and_reproduce(rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 50)).astype(np.float32)
    q, r = jax.jit(_frames.orthonormalize)(x)
    np.testing.assert_allclose(q @ q.T, np.eye(rows), atol=2e-6)
    np.testing.assert_allclose(_frames.combine(r, q), x, atol=2e-5)


@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-5, 1e-6])
def test_near_equal_inputs_keep_their_distance(angle: float) -> None:
    """1 - c = angle^2 / 2 down to 1e-12 comes through W within 1/sqrt(width)."""
    n = 4096
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(n, 2)))[0].T * np.sqrt(n)
    x = jnp.asarray(np.stack([u[0], np.cos(angle) * u[0] + np.sin(angle) * u[1]]), jnp.float32)
    y = np.asarray(ji.implicit.gaussian(jax.random.key(0), (n, n), n**-0.5)(x), np.float64)
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    np.testing.assert_allclose(np.sum((unit[0] - unit[1]) ** 2), angle**2, rtol=0.1)


# --- transforms and refusals ----------------------------------------------------------------------------------


def test_composes_under_transforms() -> None:
    def deep(key: jax.Array, x: jax.Array) -> jax.Array:
        def layer(h: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(ji.implicit.gaussian(k, (16, 16), 0.3)(h)), None

        return jnp.sum(jax.lax.scan(layer, x, jax.random.split(key, 5))[0])

    keys = jax.random.split(jax.random.key(0), 3)
    x = jnp.ones((2, 16))
    gradient = jax.grad(deep, argnums=1)
    together = jax.jit(jax.vmap(gradient, in_axes=(0, None)))(keys, x)
    alone = jax.jit(gradient)
    np.testing.assert_allclose(together, [alone(k, x) for k in keys], atol=1e-6)


def test_derivative_by_the_scale() -> None:
    def f(s: jax.Array) -> jax.Array:
        return jnp.sum(ji.implicit.gaussian(jax.random.key(0), (8, 8), s)(jnp.ones((1, 8))))

    s = jnp.float32(0.5)
    value, slope = jax.jit(jax.value_and_grad(f))(s)
    np.testing.assert_allclose(slope, value / s, rtol=1e-5)


@pytest.mark.parametrize("make", [ji.implicit.gaussian, ji.implicit.haar])
def test_lowers_for_accelerators(make: Callable) -> None:
    def f(key: jax.Array, x: jax.Array) -> jax.Array:
        return jax.grad(lambda v: jnp.sum(make(key, (64, 32), 0.1)(v) ** 2))(x)

    traced = jax.jit(f).trace(jax.random.key(0), jnp.ones((2, 64)))
    assert traced.lower(lowering_platforms=("cuda", "tpu"))


@pytest.mark.parametrize("make", [ji.implicit.gaussian, ji.implicit.haar])
def test_bad_input(make: Callable) -> None:
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"shape=.*\(n_in, n_out\)"):
        make(key, (3,), 1.0)
    with pytest.raises(ValueError, match="both at least 1"):
        make(key, (3, 0), 1.0)
    with pytest.raises(ValueError, match="greater than 0"):
        make(key, (3, 3), -1.0)
    with pytest.raises(TypeError, match=r"jax.random key"):
        make(7, (3, 3), 1.0)
    matrix = make(key, (3, 4), 1.0)
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        matrix(jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="pass x.T"):
        matrix(jnp.ones((3, 1)))
    with pytest.raises(TypeError, match="floating-point"):
        matrix(jnp.ones((2, 3), jnp.int32))
    with pytest.raises(TypeError, match="an array"):
        matrix([1.0, 2.0, 3.0])


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 40, 3, 4)], ids=["by inner products", "by the matrix"])
def test_gradient_norm_is_that_of_the_matrix(shape: tuple[int, int, int, int]) -> None:
    *lead, n_in, n_out = shape
    rng = np.random.default_rng(0)
    x, d = rng.normal(size=(*lead, 10 * n_in)), rng.normal(size=(*lead, n_out))
    want = np.linalg.norm(x.reshape(-1, 10 * n_in).T @ d.reshape(-1, n_out))
    for far, back in ((1.0, 1.0), (1e-30, 1e15), (1e30, 1e-8), (1e-38, 1e-3)):
        found = ji.implicit.gradient_norm(
            jnp.asarray(far * x, jnp.float32), jnp.asarray(back * d, jnp.float32)
        )
        np.testing.assert_allclose(found, want * far * back, rtol=1e-5 if far * back > 1e-37 else 1)
    assert ji.implicit.gradient_norm(jnp.zeros((2, 3)), jnp.ones((2, 4))) == 0
    assert ji.implicit.gradient_norm(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((2, 4))).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"of shape \(2, n_out\), as x"):
        ji.implicit.gradient_norm(jnp.ones((2, 3)), jnp.ones((3, 4)))
    with pytest.raises(TypeError, match="gradient_norm\\(d="):
        ji.implicit.gradient_norm(jnp.ones((2, 3)), None)


def norms(products: Callable, seed: int) -> dict[str, np.ndarray]:
    """|W|^2 beside what was seen of W, forward and backward."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5)), jnp.float32)

    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        y, dx, norm = products(key, x)
        return jnp.sum(y**2), jnp.sum(dx**2) / jnp.sum(cotangent(y) ** 2), norm

    seen, back, norm = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), SAMPLES))
    return {"norm": norm, "y": seen / norm, "dx": back / norm, "both": np.asarray(seen) * back / norm**2}


def test_the_norm_of_a_matrix_that_was_never_formed() -> None:
    """Of the whole matrix, jointly with its products; the twins: norms that know of the forward product only, and
    norms of other matrices."""

    def never_formed(key: jax.Array, x: jax.Array, forget: int = 0) -> tuple[jax.Array, ...]:
        there, back, rest = jax.random.split(key, 3)
        y, residual = _gaussian.forward(there, x, 4, 0.7)
        dx, seen = _gaussian.backward_and_seen(back, residual, cotangent(y), 0.7)
        if forget:
            _, seen = _gaussian.backward_and_seen(rest, residual, cotangent(y), 0.7)
        rest = jax.random.fold_in(rest, 1)
        return y, dx, _gaussian.squared_norm(rest, seen, 20, jnp.float32(0.7))

    def formed(key: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        w = 0.7 * jax.random.normal(key, (5, 4))
        y = x @ w
        return y, cotangent(y) @ w.T, jnp.sum(w**2)

    truth, found = norms(formed, 0), norms(never_formed, 1)
    same_law(truth, found)
    other = norms(lambda key, x: never_formed(key, x, 1), 2)
    same_law(*({name: of[name] for name in ("norm", "y")} for of in (truth, other)))
    other_law(truth, other)
    rolled = found["norm"] / np.roll(found["norm"], 1)
    other_law(truth, found | {"y": found["y"] * rolled, "dx": found["dx"] * rolled})
