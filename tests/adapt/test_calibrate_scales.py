"""Learnable scales as sites of `calibrate`: gains of LayerScale, numbers before residual branches."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit as ji

X = np.random.default_rng(0).normal(size=(16, 12)).astype("f4")
KEY = jax.random.key(0)


class Branch(nn.Module):
    """x + gain * f(x), gains unit by unit; carried through nn.scan."""

    gain: Any = nn.initializers.constant(0.5)
    scalar: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, _: Any = None) -> tuple[jax.Array, None]:
        h = nn.Dense(12, name="fc")(jnp.tanh(nn.LayerNorm(name="norm")(x)))
        gain = (
            self.param("gain", self.gain, ()) if self.scalar else self.param("gain", self.gain, (12,))[None]
        )
        return x + gain * h, None


class Stack(nn.Module):
    gain: Any = nn.initializers.constant(0.5)
    scalar: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        axes = {"params": 0}
        blocks = nn.scan(Branch, variable_axes=axes, split_rngs={"params": True}, length=2)
        x, _ = blocks(self.gain, self.scalar, name="blocks")(x, None)
        return nn.Dense(3, name="head")(x)


@pytest.mark.parametrize("scalar", [False, True])
def test_gains_are_scaled_to_their_target(scalar: bool) -> None:
    """What each gain makes of its branch, computed by hand from the parameters returned."""
    params, record = ji.calibrate(
        Stack(scalar=scalar), X, KEY, scales="**/gain", target={"blocks/gain": 0.04, "**": 1.0}
    )
    assert record.ok, record
    gains = {site.name: site for site in record if site.kind == "mul"}
    assert len(gains) == 2 and all(abs(site.target - 0.04) < 1e-9 for site in gains.values()), record
    x = jnp.asarray(X)
    for layer in range(2):
        own = jax.tree.map(lambda leaf, n=layer: leaf[n], params["blocks"])
        new, _ = Branch(scalar=scalar).apply({"params": own}, x)
        np.testing.assert_allclose(np.mean(np.square(new - x)), 0.04, rtol=0.01)
        h = nn.Dense(12).apply(
            {"params": own["fc"]}, jnp.tanh(nn.LayerNorm().apply({"params": own["norm"]}, x))
        )
        np.testing.assert_allclose(np.mean(np.square(h)), 1.0, rtol=0.01)
        x = new
    _, alone = ji.calibrate(Stack(scalar=scalar), X, KEY)  # twin: not asked for, they stay
    assert not any(site.kind == "mul" for site in alone)


def test_a_branch_that_is_off_stays_off() -> None:
    params, record = ji.calibrate(Stack(nn.initializers.zeros), X, KEY, scales="blocks/gain")
    assert not params["blocks"]["gain"].any()
    assert {site.status for site in record if site.kind == "mul"} == {"zero-initialized branch kept"}


def test_what_multiplies_no_signal_is_refused() -> None:
    for text in ("blocks/norm/scale", "blocks/fc/kernel", "nothing"):  # a norm's gain multiplies its inverse
        with pytest.raises(
            ValueError, match=r"`calibrate\(scales=...\)` must be patterns of parameters that"
        ):
            ji.calibrate(Stack(), X, KEY, scales=text)
    with pytest.raises(ValueError, match="method='analytic'"):
        ji.calibrate(Stack(), X, KEY, scales="**/gain", method="analytic")
    with pytest.raises(TypeError, match="scales"):
        ji.calibrate(Stack(), X, KEY, scales=3)
