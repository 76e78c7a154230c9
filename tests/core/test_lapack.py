"""Factorizations that may be batched, and the sight of those that would hang."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit._core import lapack

A = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))


def test_qr_and_svd_of_every_matrix_of_a_stack() -> None:
    q, r = lapack.qr(A)
    u, s, vt = lapack.svd(A)
    for index in np.ndindex(2, 3):
        assert [np.array_equal(a[index], b) for a, b in zip((q, r), alone(A[index]), strict=True)] == [
            True
        ] * 2
        np.testing.assert_allclose(s[index], np.linalg.svd(A[index])[1], rtol=1e-5)
    np.testing.assert_allclose(jnp.einsum("...ik,...k,...kj->...ij", u, s, vt), A, atol=1e-5)


def alone(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    return tuple(jnp.linalg.qr(a))


@pytest.mark.parametrize(
    ("name", "batched"), [("qr", True), ("cholesky", True), ("inv", True), ("norm", False), ("ours", False)]
)
def test_batched_kernels_are_seen_in_a_program(name: str, batched: bool) -> None:
    one = lapack.qr if name == "ours" else getattr(jnp.linalg, name)
    square = jnp.ones((6, 4, 4))
    assert lapack.is_batched(jax.jit(jax.vmap(one)).lower(square).as_text()) is batched
    assert not lapack.is_batched(jax.jit(one).lower(square[0]).as_text())


def test_lowers_for_accelerators_as_a_batch() -> None:
    traced = jax.jit(jax.vmap(lapack.qr)).trace(jnp.ones((6, 4, 4)))
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "lapack" not in text and "6x4x4" in text
