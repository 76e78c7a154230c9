"""The sums of a place and the statistics made of them, against their definitions, where numbers are extreme."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit.probe._activation import Chain
from jaxinit.probe._layout import Layout
from jaxinit.probe._rows import backward_row, forward_row
from jaxinit.records import PROBE_STATISTICS, STATISTICS

EVERY = frozenset({**STATISTICS, **PROBE_STATISTICS})
POOLED = Layout(64, False, EVERY)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 257)).astype("f4")
RELU = Chain(jax.make_jaxpr(jax.nn.relu)(X).jaxpr)


def found(x: Any, layout: Layout = POOLED, chain: Chain | None = RELU) -> dict[str, Any]:
    """The statistics of one place, on the host; second moments as their logarithm."""
    rows = jnp.stack([forward_row(jnp.asarray(x), 0, layout, chain)])
    back = jnp.stack([backward_row(jnp.asarray(x), 0, layout)])
    out = layout.statistics(rows, False) | layout.statistics(back, True)
    for name in ("log_second_moment", "log_grad_second_moment"):
        value = out.pop(name)
        out[name] = np.log(np.asarray(value.mantissa, float)) + np.asarray(value.exponent) * np.log(2)
    return {name: np.asarray(value)[0] for name, value in out.items() if hasattr(value, "shape")}


def pooled_cosine(x: np.ndarray) -> float:
    rows = x.astype(float)[np.any(x != 0, axis=1)]
    u = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float((np.sum(u @ u.T) - len(u)) / (len(u) * (len(u) - 1)))


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_at_any_scale(size: float) -> None:
    """Of values and gradients whose squares are no float32."""
    here = found(X * np.float32(size))
    want = np.log(np.mean(X.astype(float) ** 2)) + 2 * np.log(size)
    assert here["log_second_moment"] == pytest.approx(want, abs=1e-5)
    assert here["log_grad_second_moment"] == pytest.approx(want, abs=1e-5)
    assert here["mean"] == pytest.approx(np.mean(X.astype(float)) * size, rel=1e-3)
    assert here["correlation"] == pytest.approx(pooled_cosine(X), abs=1e-6)
    assert here["nonfinite_fraction"] == here["grad_nonfinite_fraction"] == 0
    assert here["zero_fraction"] == pytest.approx(np.mean(X <= 0), abs=1e-6)


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_what_is_not_finite_is_seen(spoiled: float) -> None:
    """Fast maxima pass over nan."""
    x = X.copy()
    x[5, 100] = spoiled
    here = found(x)
    assert here["log_second_moment"] == here["log_grad_second_moment"] == np.inf
    assert here["nonfinite_fraction"] == here["grad_nonfinite_fraction"] == 1 / 64
    assert np.isnan(here["mean"]) and np.isnan(here["grad_zero_fraction"])


def test_units_that_are_silent_and_examples_that_are_zero() -> None:
    x = X.copy()
    x[:, :100] = -np.abs(x[:, :100])
    x[[0, 7]] = 0
    here = found(x)
    assert here["dead_fraction"] == pytest.approx(100 / 257, abs=1e-6)
    assert here["saturated_fraction"] == pytest.approx(np.mean(x <= 0), abs=1e-6)
    assert here["grad_zero_fraction"] == 0
    assert here["correlation"] == pytest.approx(pooled_cosine(x), abs=1e-6)
    x[:, 200:] = 0
    assert found(x)["grad_zero_fraction"] == pytest.approx(57 / 257, abs=1e-6)


def test_near_equal_examples_and_values_far_from_0() -> None:
    x = X[:1] + np.float32(1e-4) * X
    assert found(x)["one_minus_correlation"] == pytest.approx(1 - pooled_cosine(x), rel=2e-3)
    z = x.astype(float)
    kurtosis = np.mean((z - z.mean()) ** 4) / np.var(z) ** 2 - 3
    assert found(x)["kurtosis"] == pytest.approx(kurtosis, abs=1e-4)
    assert np.isnan(found(1000 + x)["kurtosis"])  # too few digits are left of the variance


def test_positions_and_examples_apart() -> None:
    x = RNG.normal(size=(4, 11, 6)).astype("f4") + 1
    here = found(x, Layout(4, True, EVERY), None)
    each = [pooled_cosine(e) for e in x]
    assert here["position_correlation"] == pytest.approx(np.mean(each), abs=1e-6)
    np.testing.assert_allclose(here["mean"], x.reshape((4, -1)).mean(axis=1), rtol=1e-5)
    assert np.isnan(here["dead_fraction"]) and here["zero_fraction"] == 0
