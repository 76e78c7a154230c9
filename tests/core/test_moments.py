"""Moments merge to the moments of the whole; numbers with exponents of their own lose nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit._core import scaled
from jaxinit._core.moments import Moments
from jaxinit._core.scaled import Scaled

RNG = np.random.default_rng(0)


def same(a: Moments, b: Moments, rtol: float = 1e-12) -> None:
    assert np.array_equal(a.count, b.count)
    for name in ("mean", "m2", "min", "max"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, err_msg=name)


def test_against_numpy() -> None:
    x = RNG.normal(3.0, 2.0, (50, 4))
    m = Moments.of(x)
    np.testing.assert_allclose(m.mean, x.mean(0))
    np.testing.assert_allclose(m.variance, x.var(0, ddof=1))
    np.testing.assert_allclose(m.stderr, x.std(0, ddof=1) / np.sqrt(50))
    assert (m.min == x.min(0)).all() and (m.max == x.max(0)).all()


@pytest.mark.parametrize("cuts", [(1,), (10, 11, 40), (25,)])
def test_merging_is_the_whole(cuts: tuple[int, ...]) -> None:
    x = 1e6 + RNG.normal(size=(50, 3))
    x[7, 1] = np.nan
    parts = [Moments.of(p) for p in np.split(x, cuts)]
    merged = parts[0]
    for p in parts[1:]:
        merged = merged.merge(p)
    same(merged, Moments.of(x), rtol=1e-9)


def test_undefined_samples_are_counted_apart() -> None:
    x = np.array([[1.0, np.nan], [3.0, np.nan]])
    m = Moments.of(x)
    assert m.count.tolist() == [2, 0] and m.mean[0] == 2.0 and np.isnan(m.mean[1])
    same(
        m.merge(Moments.of(np.array([[5.0, 7.0]]))),
        Moments.of(np.array([[1, np.nan], [3, np.nan], [5.0, 7.0]])),
    )


def test_infinite_samples_are_not_hidden() -> None:
    m = Moments.of([[-np.inf], [0.0]])
    assert m.mean[0] == -np.inf and np.isnan(m.stderr[0])
    assert m.merge(Moments.of([[1.0]])).mean[0] == -np.inf


def test_single_and_exact() -> None:
    assert np.isnan(Moments.of([[1.0]]).stderr[0])
    assert Moments.exact([1.0]).stderr[0] == 0.0
    with pytest.raises(ValueError, match="shapes"):
        Moments.of([[1.0]]).merge(Moments.of([[1.0, 2.0]]))


def test_in_program_moments_are_those_of_the_host() -> None:
    x = (5.0 + 1e-3 * RNG.normal(size=(400, 3))).astype(np.float32)
    x[3, 0] = np.nan
    got = jax.jit(scaled.reduce)(jnp.asarray(x)).host()
    want = Moments.of(x)
    assert np.array_equal(got.count, want.count)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-7)
    np.testing.assert_allclose(got.m2, want.m2, rtol=1e-4)  # one float32 pass would lose all digits of m2


@pytest.mark.parametrize("shift", [0, -5000, 5000])
def test_scaled_moments_far_outside_the_float_range(shift: int) -> None:
    rng = np.random.default_rng(3)
    m = rng.uniform(0.5, 1.0, (100, 2)).astype(np.float32)
    e = rng.integers(-8, 8, (100, 2)).astype(np.int32)
    value, log = (
        jax.jit(scaled.reduce)(Scaled(jnp.asarray(m), jnp.asarray(e + shift), log=log)).host()
        for log in (False, True)
    )
    small = m.astype(np.float64) * 2.0**e
    np.testing.assert_allclose(
        log.mean, np.log(small).mean(0) + shift * np.log(2), rtol=1e-6, atol=2e-6
    )  # logs up to 6
    np.testing.assert_allclose(log.stderr, np.log(small).std(0, ddof=1) / 10, rtol=1e-4)
    if shift == 0:
        np.testing.assert_allclose(value.mean, small.mean(0), rtol=1e-6)
        np.testing.assert_allclose(value.stderr, small.std(0, ddof=1) / 10, rtol=1e-5)
    else:
        assert (value.mean == (0.0 if shift < 0 else np.inf)).all()


def test_dead_samples_have_log_minus_infinity() -> None:
    s = Scaled(jnp.array([[0.0], [0.5]], jnp.float32), jnp.zeros((2, 1), jnp.int32), log=True)
    host = jax.jit(scaled.reduce)(s).host()
    assert host.mean[0] == -np.inf and host.min[0] == -np.inf
    np.testing.assert_allclose(host.max[0], np.log(0.5), rtol=1e-6)


def test_normalize_is_exact() -> None:
    x = jnp.asarray(RNG.normal(size=(3, 17)).astype(np.float32)).at[2].set(0.0)
    y, e = scaled.normalize(x, jnp.asarray([7, -900, 4], jnp.int32))
    back = np.asarray(y, np.float64) * 2.0 ** (np.asarray(e, np.float64) - np.array([7, -900, 4]))[:, None]
    assert (back == np.asarray(x, np.float64)).all()
    assert (np.abs(np.asarray(y)).max(1)[:2] < 1).all() and (np.abs(np.asarray(y)).max(1)[:2] >= 0.5).all()
    assert int(e[2]) == 4
