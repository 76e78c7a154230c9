"""Normals by radius and angle: their law entry by entry, in pairs and in the tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxinit._core.normals import normals

N = 1 << 20


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return np.asarray(jax.jit(lambda k: normals(k, 4, N // 4))(jax.random.key(11)), np.float64)


def p_values(x: np.ndarray) -> list[float]:
    """Kolmogorov-Smirnov for entries, for what ties a pair (rows 0 and 1), and for neighbours; tails by count."""
    a, b = x[0], x[1]
    far = int((np.abs(x) > 4).sum())
    return [
        stats.kstest(x.ravel(), "norm").pvalue,
        stats.kstest(a**2 + b**2, "chi2", args=(2,)).pvalue,
        stats.kstest((a + b) / np.sqrt(2), "norm").pvalue,
        stats.kstest(np.arctan2(a, b), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue,
        stats.kstest((a[:-1] + a[1:]) / np.sqrt(2), "norm").pvalue,
        stats.spearmanr(a**2, b**2).pvalue,
        stats.spearmanr(x[0], x[2]).pvalue,
        stats.binomtest(far, x.size, 2 * stats.norm.sf(4)).pvalue,
    ]


def test_law(drawn: np.ndarray) -> None:
    assert min(p_values(drawn)) > 1e-5
    assert np.abs(drawn).max() < 6.8


@pytest.mark.parametrize(
    "wrong", [lambda x: 1.02 * x, lambda x: x[[0, 0, 2, 3]], lambda x: np.clip(x, -4, 4)]
)
def test_twin_other_laws_are_seen(drawn: np.ndarray, wrong) -> None:
    assert min(p_values(wrong(drawn))) < 1e-9


def test_words_are_turned_into_normals_to_rounding() -> None:
    """The polynomials against NumPy's logarithm, sine and cosine in float64."""
    from jaxinit._core.normals import polar

    x, y = np.random.default_rng(0).integers(0, 2**32, (2, 100_000), dtype=np.uint32)
    a, b = (np.asarray(v, np.float64) for v in polar(jnp.asarray(x), jnp.asarray(y)))
    radius = np.sqrt(-2 * np.log((x + 0.5) / 2.0**32))
    angle = y.astype(np.int32) / 2.0**31 * np.pi / 4 + np.pi * (y & 1) + np.pi / 2 * ((y >> 1) & 1)
    near = x < 2**32 - 2**20  # where the radius is not yet rounded
    np.testing.assert_allclose(a[near], (radius * np.cos(angle))[near], rtol=0, atol=2e-6 * 6)
    np.testing.assert_allclose(b[near], (radius * np.sin(angle))[near], rtol=0, atol=2e-6 * 6)


def test_first_rows_do_not_depend_on_the_others() -> None:
    key = jax.random.key(3)
    every = np.asarray(normals(key, 7, 33))
    for rows in (1, 2, 5):
        assert np.array_equal(normals(key, rows, 33), every[:rows])
    assert np.unique(every).size == every.size


def test_under_vmap_and_in_other_precisions() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.vmap(lambda k: normals(k, 3, 5))(keys)
    np.testing.assert_allclose(batch[1], normals(keys[1], 3, 5), rtol=1e-6)
    assert normals(keys[0], 2, 5, jnp.bfloat16).dtype == jnp.bfloat16
    with jax.enable_x64(True):
        x = np.asarray(normals(keys[0], 3, 20_000, jnp.float64))
    assert x.dtype == np.float64 and stats.kstest(x.ravel(), "norm").pvalue > 1e-5
    assert np.unique(x.astype(np.float32).view(np.uint32) & 0xFF).size == 256


def test_lowers_for_accelerators() -> None:
    traced = jax.jit(lambda k: normals(k, 3, 64)).trace(jax.random.key(0))
    assert traced.lower(lowering_platforms=("cuda", "tpu"))
