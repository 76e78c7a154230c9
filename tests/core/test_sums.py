"""Sums in one loop: the sums of any number of arrays of any length, of few rows or many, whatever is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit._core.scaled import is_infinite, normalize
from jaxinit._core.sums import exponents, one_loop, products, products_and, sums

RNG = np.random.default_rng(0)


def rows(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("few", "n"), [(2, 64), (3, 30), (6, 32), (1, 7), (2, 1)])
def test_sums_and_products(few: int, n: int) -> None:
    x, y, one = rows(few, n), rows(few + 1, n), rows(n)

    @jax.jit
    def program(x: jax.Array, y: jax.Array, one: jax.Array) -> tuple:
        return (*sums(x, one, jnp.square(y)), products(x), *products_and(x, y, one))

    expected = (x.sum(1), one.sum(), (y**2).sum(1), x @ x.T, x @ y.T, one.sum())
    for found, want in zip(program(x, y, one), expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5 * n**0.5)
    batch = jax.vmap(lambda v: products(v))(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(batch[1], 4 * (x @ x.T), rtol=1e-5, atol=1e-4)
    assert sums() == ()


def test_one_loop_leaves_arrays_as_they_are() -> None:
    arrays = (
        jnp.asarray(rows(3, 5)),
        jnp.arange(15, dtype=jnp.int32).reshape(3, 5),
        jnp.full((3, 5), jnp.inf),
    )
    for found, want in zip(jax.jit(one_loop)(*arrays), arrays, strict=True):
        np.testing.assert_array_equal(found, want, strict=True)


@pytest.mark.parametrize("n", [5, 64, 1000])
def test_exponents_and_rows_of_order_one(n: int) -> None:
    sizes = np.array([1.0, 1e30, 1e-30, 0.75, 0.0, np.nan, np.inf, -np.inf], np.float32)
    x = rows(8, n)
    x[np.arange(8), RNG.integers(0, n, 8)] = 4.0
    x = np.where(
        np.arange(n) == n // 2, sizes[:, None], x * 1e-3 * np.where(np.isfinite(sizes), sizes, 1)[:, None]
    )
    x = x.astype(np.float32)
    bits = np.asarray(jax.jit(exponents)(x))
    top = np.abs(x[:5]).max(axis=1)
    np.testing.assert_array_equal(bits[:4], np.frexp(top[:4])[1] + 126)
    np.testing.assert_array_equal(bits[4:], [0, 255, 255, 255])
    z, exponent = jax.jit(normalize)(x, jnp.full(8, 3, jnp.int32))
    np.testing.assert_array_equal(is_infinite(exponent), [False] * 5 + [True] * 3)
    np.testing.assert_array_equal(
        np.ldexp(np.asarray(z, np.float64), np.asarray(exponent)[:, None] - 3)[:5], x[:5]
    )
    assert np.all((np.abs(z[:4]).max(axis=1) >= 0.5) & (np.abs(z[:4]).max(axis=1) < 1))
    assert exponent[4] == 3
    assert np.all(np.asarray(z)[4:] == 0)
