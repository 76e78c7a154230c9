"""`calibrate` by gradients: partial Jacobians of 1, and the gradient quotient."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit.adapt import _gradient, _lsuv, calibrate
from jaxinit.probe import products

KEY = jax.random.key(0)
X = np.random.default_rng(3).normal(size=(64, 12)).astype("f4")
DEPTH = 8


class Deep(nn.Module):
    """tanh layers, the last read twice."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for n in range(DEPTH):
            x = jnp.tanh(nn.Dense(32, name=f"d{n}")(x))
        return x + nn.Dense(32, name="skipped")(x)


@pytest.fixture(scope="module")
def spoiled() -> Any:
    rng = np.random.default_rng(0)
    drawn = jax.jit(Deep().init)(KEY, X)["params"]
    return jax.tree.map(lambda p: p * np.float32(10.0 ** rng.uniform(-1, 1)), drawn)


def lengths(params: Any) -> np.ndarray:
    """Mean |dL/dz_l|^2 over 24 cotangents, by backpropagation through perturbed pre-activations."""

    def out(shifts: Any) -> Any:
        h = X
        for n in range(DEPTH):
            h = jnp.tanh(h @ params[f"d{n}"]["kernel"] + shifts[n])  # biases are 0
        return h + h @ params["skipped"]["kernel"]

    zero = [jnp.zeros((len(X), 32))] * DEPTH
    r = jax.random.normal(jax.random.key(99), (24, 1, 32)) * jnp.ones((1, len(X), 1))
    back = jax.jit(lambda r: jax.vmap(lambda c: jax.vjp(out, zero)[1](c)[0])(r))(r)
    return np.array([np.mean(np.sum(np.square(g), axis=(1, 2))) for g in back])


@pytest.fixture(scope="module")
def critical(spoiled: Any) -> Any:
    return calibrate(Deep(), X, KEY, params=spoiled, method="critical")


def exact(params: Any) -> list[float]:
    """chi_1 = mean over examples of sum_ij (W_ij phi'(z_j))^2 / n, of layers 1, 2, ..."""
    z, out = X.astype(np.float64) @ np.asarray(params["d0"]["kernel"], np.float64), []
    for n in range(1, DEPTH):
        w = np.asarray(params[f"d{n}"]["kernel"], np.float64)
        slope = 1 - np.tanh(z) ** 2
        out.append(float(np.mean((slope**2) @ np.sum(w**2, axis=1))) / w.shape[1])
        z = np.tanh(z) @ w
    return out


def test_partial_jacobians_are_of_length_one(spoiled: Any, critical: Any) -> None:
    new, record = critical
    # The sign estimate is good to sqrt(2 / (32 * 64)) = 3 %; five of these.
    assert np.allclose(exact(new), 1, rtol=0.16)
    # Of saturated layers few entries count, so there it is rough.
    before = np.log([record[f"d{n}"].before for n in range(1, DEPTH)])
    assert np.all(np.abs(before - np.log(exact(spoiled))) < 0.7) and np.abs(before).max() > 3


def test_gradients_keep_their_length(spoiled: Any, critical: Any) -> None:
    found = lengths(critical[0])
    assert 0.5 < found[0] / found[-1] < 2
    # Twins: as drawn they do not; and unit variance alone does not keep the gradient of tanh, chi_1 = 1.18 a layer.
    assert not 0.5 < lengths(spoiled)[0] / lengths(spoiled)[-1] < 2
    unit, _ = calibrate(Deep(), X, KEY, params=spoiled)
    assert lengths(unit)[0] / lengths(unit)[-1] > 2


def test_the_record_says_what_ruled(critical: Any) -> None:
    _, record = critical
    assert record.ok and record["d0"].target == 1 and "no layer before it" in record["d0"].why
    assert all(record[f"d{n}"].why == "" and abs(record[f"d{n}"].after - 1) < 0.01 for n in range(1, DEPTH))
    assert "beside" in record["skipped"].why
    assert (
        abs(record.figures["product of chi_1"] - 1) < 0.07 and record.figures["layers in a row"] == DEPTH - 1
    )
    assert record.statistic.startswith("chi_1")


def test_the_quotient_is_that_of_a_dense_hessian() -> None:
    rng = np.random.default_rng(5)
    w, v = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 3), (3, 2)))
    x = jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)

    def loss(leaves: Any) -> Any:
        return jnp.mean(jnp.square(jnp.tanh(x @ leaves[0]) @ leaves[1]))

    def flat(theta: Any) -> Any:
        return loss([theta[:12].reshape(4, 3), theta[12:].reshape(3, 2)])

    theta = jnp.concatenate([w.ravel(), v.ravel()])
    given = jax.jit(
        lambda t: (jax.grad(flat)(t), jax.hessian(flat)(t), _gradient.gradient_quotient(loss, [w, v]))
    )
    g, h, found = (np.asarray(value, np.float64) for value in given(theta))
    hand = np.mean(np.abs((g - h @ g) / (g + _gradient.EPSILON * np.where(g >= 0, 1, -1)) - 1))
    assert np.isclose(found, hand, rtol=1e-3)


class Small(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(3, name="b")(jnp.tanh(nn.Dense(8, name="a")(x)))


def cross_entropy(logits: Any, labels: Any) -> Any:
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * labels, axis=-1))


def test_descent_lowers_the_quotient_and_moves_scales_alone() -> None:
    labels = np.eye(3, dtype="f4")[np.arange(64) % 3]
    drawn = jax.tree.map(lambda p: 0.2 * p, jax.jit(Small().init)(KEY, X)["params"])
    given = {"params": drawn, "method": "gradient", "steps": 40, "loss": cross_entropy, "labels": labels}
    new, record = calibrate(Small(), X, KEY, **given)
    assert record.ok
    assert record.figures["gradient quotient after"] < 0.8 * record.figures["gradient quotient before"]
    for name in ("a", "b"):
        ratio = np.asarray(new[name]["kernel"]) / np.asarray(drawn[name]["kernel"])
        assert np.allclose(ratio, record[name].factor, rtol=1e-4)
        assert abs(np.log(record[name].factor)) > 0.05
    _, fixed = calibrate(Small(), X, KEY, exclude="*", **given)
    assert [s.status for s in fixed] == ["excluded", "excluded"]


def test_lowering_and_bad_input(monkeypatch: Any) -> None:
    lowered = []
    for module, name in ((_lsuv, "_search"), (_gradient, "_descend")):
        program = getattr(module, name)

        def watched(*args: Any, program: Any = program) -> Any:
            lowered.append(program.trace(*args).lower(lowering_platforms=("cuda", "tpu")).as_text())
            raise StopIteration

        monkeypatch.setattr(module, name, watched)
    for method in ("critical", "gradient"):
        with pytest.raises(StopIteration):
            calibrate(Small(), X, KEY, method=method, steps=2)
    assert len(lowered) == 2
    with pytest.raises(ValueError, match="biases"):
        calibrate(Small(), X, KEY, method="critical", biases="centre")
    with pytest.raises(ValueError, match="steps"):
        calibrate(Small(), X, KEY, method="gradient", steps=0)
    with pytest.raises(ValueError, match="looks at no loss"):
        calibrate(Small(), X, KEY, loss=cross_entropy)
    with pytest.raises(ValueError, match="labels"):
        calibrate(Small(), X, KEY, method="gradient", loss=cross_entropy)


def test_which_product_feeds_which() -> None:
    found = products(Deep(), (X,))
    layers = [list(map(found.layers, range(0)))] * len(found.products)
    known = found.dependence(layers, [np.zeros(stack, bool) for stack in found.stacks])
    above = known.above.astype(int)
    assert np.array_equal(above[1:-1, :-1], np.eye(DEPTH, dtype=int)[:DEPTH])
    assert above[0].sum() == 0 and above[-1, -2:].tolist() == [1, 1]
