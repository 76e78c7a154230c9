"""Recurrent networks that read an input at every step: against one written out, by law."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import SAME, other_law, p_value, same_law

import jaxinit as ji
from jaxinit._core.normals import vector
from jaxinit.simulate._tied import Tied

SEEDS = 4000
RECORD = ["second_moment", "correlation", "grad_second_moment", "weight_grad_norm"]


def network(**changes: object) -> ji.Network:
    given = {"depth": 6, "width": 4, "activation": "identity", "bias_variance": 0.1, "tied": True,
             "input_width": 3, "input_weight_variance": 0.7, **changes}  # fmt: skip
    if "initializer" not in given:
        given.setdefault("weight_variance", 1.0)
    return ji.Network(**given)  # type: ignore[arg-type]


def test_against_a_network_written_out() -> None:
    def draw(key: jax.Array, shape: tuple[int, ...], dtype: object = jnp.float32) -> jax.Array:
        return jax.random.normal(key, shape, jnp.float32) / jnp.sqrt(jnp.float32(shape[0]))

    net = network(depth=4, activation="tanh", initializer=draw)
    x = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    run = ji.simulate(net, [5], x=x, keep_seeds=True, record=RECORD)
    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 5)
    keys = jax.random.split(key, (5, 4))
    w, b = draw(keys[1, 0], (4, 4)), vector(keys[1, 2], 4) * np.sqrt(np.float32(0.1))
    u = jax.random.normal(keys[0, 2], (3, 4)) * np.sqrt(np.float32(0.7 / 3))
    r = vector(keys[0, 1], 4) / 2

    def loss(w: jax.Array, probes: list) -> tuple[jax.Array, list]:
        h, zs = jnp.zeros((3, 4)), []
        for t, p in enumerate(probes):
            zs.append(h @ w + x[:, t] @ u + b[None] + p)
            h = jnp.tanh(zs[-1])
        return jnp.sum(zs[-1] * r[None]), zs

    (dw, dz), zs = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(w, [jnp.zeros((3, 4))] * 4)
    parts = [np.zeros((4, 4))] + [np.tanh(zs[t - 1]).T @ dz[t] for t in range(1, 4)]
    np.testing.assert_allclose(sum(parts), dw, rtol=1e-4, atol=1e-6)
    for t in range(4):
        z, d = np.asarray(zs[t], np.float64), np.asarray(dz[t], np.float64)
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        want = {
            "second_moment": (z**2).mean(1),
            "correlation": [unit[a] @ unit[b] for a, b in run.pairs],
            "grad_second_moment": (d**2).mean(1),
            "weight_grad_norm": np.linalg.norm(parts[t]),
        }
        for name, value in want.items():
            np.testing.assert_allclose(run[name].samples[0, t], value, rtol=2e-4, atol=1e-5, err_msg=name)


def samples(net: ji.Network, sampler: str, root: int, batch: int = 200) -> dict[str, np.ndarray]:
    run = ji.simulate(net, SEEDS, sampler=sampler, record=RECORD, keep_seeds=True, root=root, batch=batch)
    out = {name: np.asarray(run[name].samples)[:, 1:] for name in RECORD}
    out["forward x backward"] = out["second_moment"][:, -1, 0] * out["grad_second_moment"][:, 0, 0]
    out["growth"] = out["second_moment"][:, -1, 0] / out["second_moment"][:, 1, 0]
    return out


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return samples(network(), "materialized", 0)


def test_never_formed_has_the_law_of_drawn(drawn: dict[str, np.ndarray]) -> None:
    same_law(drawn, samples(network(), "implicit", 1))


def test_twin_another_matrix_at_every_step_is_seen(
    drawn: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Tied.forward

    def fresh(self: Tied, keys: Any, state: Any, *rest: Any) -> Any:
        y, residual, after = true(self, keys, jax.tree.map(jnp.zeros_like, state), *rest)
        return y, residual, jax.tree.map(jnp.zeros_like, after)

    monkeypatch.setattr(Tied, "forward", fresh)
    found = samples(network(), "implicit", 1, batch=250)  # another batch: traced anew
    assert p_value(drawn["second_moment"][:, 0], found["second_moment"][:, 0]) > SAME  # one product so far
    other_law(drawn, found)


def test_leaky_ones_read_through_their_skips() -> None:
    """With W = 0: z_t = alpha z_(t-1) + beta U x_t, whose second moments add up."""
    net = network(width=64, weight_variance=0.0, bias_variance=0.0, residual=ji.Residual(0.5, 0.4))
    run = ji.simulate(net, 64, sampler="materialized", record=["second_moment"])
    q = 0.7
    for t in range(1, 6):
        q = 0.25 * q + 0.16 * 0.7
        assert abs(run.second_moment.mean[t, 0] - q) < 5 * run.second_moment.stderr[t, 0]


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match="unless tied=True"):
        ji.Network(3, 8, "tanh", weight_variance=1.0, input_weight_variance=1.0)
    with pytest.raises(ValueError, match="at least 0"):
        network(input_weight_variance=-1.0)
    with pytest.raises(
        ValueError, match=r"of shape \(inputs, 6, input_width\) with .* reads an input at every"
    ):
        ji.simulate(network(), 1, x=np.ones((2, 3)))
    with pytest.raises(ValueError, match="without input_weight_variance"):
        ji.meanfield.finite_width(network())
