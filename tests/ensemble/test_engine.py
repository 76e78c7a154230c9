"""The engine: moments over chunks are the moments of the whole, progress is told, programs are reused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit import ensemble
from jaxinit._core.moments import Moments
from jaxinit._core.scaled import Scaled


def one(key: jax.Array, data: jax.Array) -> dict[str, object]:
    x = jax.random.normal(key, (3,)) + data
    bits = jax.random.bits(key, (3,), jnp.uint16).astype(jnp.float32)
    return {"bits": bits, "x": x, "scaled": Scaled(x, jnp.full((3,), 2, jnp.int32))}


SEEDS = np.arange(10, dtype=np.uint32)


def test_keys_name_networks() -> None:
    root = jax.random.key(4, impl="threefry2x32")
    keys = ensemble.keys_of(np.array([9, 2], np.uint32), 4)
    assert (jax.random.key_data(keys[1]) == jax.random.key_data(jax.random.fold_in(root, 2))).all()


@pytest.mark.parametrize("batch", [1, 3, 10])
@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
def test_moments_whatever_the_split(batch: int, chunk: int | None) -> None:
    moments, samples = ensemble.run(one, jnp.float32(1.0), SEEDS, batch=batch, chunk=chunk, keep=True)
    alone = [one(k, jnp.float32(1.0)) for k in ensemble.keys_of(SEEDS, 0)]
    want = np.stack([np.asarray(sample["x"]) for sample in alone])
    assert samples is not None
    # The draws are the same to the bit; what is computed from them, to the compiler's rounding.
    np.testing.assert_array_equal(samples["bits"], np.stack([np.asarray(sample["bits"]) for sample in alone]))
    np.testing.assert_allclose(samples["x"], want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(samples["scaled"], 4.0 * want, rtol=1e-6, atol=4e-6)
    for name, factor in (("x", 1.0), ("scaled", 4.0)):
        np.testing.assert_allclose(moments[name].mean, factor * Moments.of(want).mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moments[name].stderr, factor * Moments.of(want).stderr, rtol=1e-4)
        np.testing.assert_array_equal(moments[name].count, 10)


def test_progress() -> None:
    calls: list[tuple[int, int]] = []
    ensemble.run(
        one, jnp.float32(0.0), SEEDS, chunk=4, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(4, 10), (8, 10), (10, 10)]


def test_bar_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    ensemble.run(one, jnp.float32(0.0), SEEDS, chunk=4, progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "seeds" in captured.err
