"""One matrix for all layers: against one written out, by law between samplers, and against its limit.

Sizes fixed beforehand; at width 6 and four steps a network of independent layers has visibly another law.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forgetful import forgotten_projections
from laws import SAME, other_law, p_value, same_law

import jaxinit as ji
from jaxinit import meanfield
from jaxinit._core.normals import vector
from jaxinit.network import Spatial
from jaxinit.simulate._tied import Tied

SEEDS = 4000
RECORD = ["second_moment", "correlation", "grad_second_moment"]


def network(**changes: object) -> ji.Network:
    given = {"depth": 4, "width": 6, "activation": "tanh", "bias_variance": 0.1, "tied": True, **changes}
    if "initializer" not in given:
        given.setdefault("weight_variance", 1.5)
    return ji.Network(**given)  # type: ignore[arg-type]


def samples(net: ji.Network, sampler: str, root: int, batch: int = 200) -> dict[str, np.ndarray]:
    found = ji.simulate(net, SEEDS, sampler=sampler, record=RECORD, keep_seeds=True, root=root, batch=batch)
    return {name: np.asarray(found[name].samples) for name in RECORD}


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return samples(network(), "materialized", 0)


def test_is_the_network_of_one_matrix() -> None:
    def fixed(key: jax.Array, shape: tuple[int, ...], dtype: object = None) -> jax.Array:
        return jnp.asarray(np.random.default_rng(5).normal(size=shape), jnp.float32)

    tied, repeated = (
        ji.simulate(network(initializer=fixed, bias_variance=0.0, tied=tied), 2, keep_seeds=True)
        for tied in (True, False)
    )
    for name in (*RECORD, "weight_grad_norm", "dead_fraction"):
        np.testing.assert_allclose(tied[name].samples, repeated[name].samples, rtol=1e-5, err_msg=name)


def test_never_formed_has_the_law_of_drawn(drawn: dict[str, np.ndarray]) -> None:
    same_law(drawn, samples(network(), "implicit", 1))


def test_orthogonal_never_formed_has_the_law_of_drawn(drawn: dict[str, np.ndarray]) -> None:
    """The twin: Gaussian ones."""
    one, two = (
        samples(network(ensemble="orthogonal"), kind, i)
        for i, kind in enumerate(("implicit", "materialized"))
    )
    same_law(one, two)
    other_law(one, drawn)


def test_twin_independent_layers_have_another_law(drawn: dict[str, np.ndarray]) -> None:
    other_law(drawn, samples(network(tied=False), "materialized", 2))


#: Where the gradient is made of the same powers of one small matrix as the signal.
LINEAR = {"depth": 6, "width": 4, "activation": "linear", "weight_variance": 1.0, "bias_variance": 0.0}


@pytest.fixture(scope="module")
def powers() -> dict[str, np.ndarray]:
    return samples(network(**LINEAR), "materialized", 0)


def test_the_gradient_is_that_of_the_matrix_seen(powers: dict[str, np.ndarray]) -> None:
    same_law(powers, samples(network(**LINEAR), "implicit", 1))


@contextmanager
def nothing_seen() -> Iterator[None]:
    true = Tied.backward

    def forgetful(self: Tied, keys: Any, state: Any, *rest: Any) -> Any:
        return true(self, keys, jax.tree.map(jnp.zeros_like, state), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tied, "backward", forgetful)
        yield


@pytest.mark.parametrize(("forgets", "batch"), [(nothing_seen, 250), (forgotten_projections, 400)])
def test_twin_a_backward_pass_that_forgets_is_seen(
    powers: dict[str, np.ndarray], forgets: Callable, batch: int
) -> None:
    with forgets():
        found = samples(network(**LINEAR), "implicit", 1, batch=batch)  # another batch: traced anew
    assert p_value(powers["second_moment"], found["second_moment"]) > SAME
    other_law(powers, found)


def test_wide_ones_follow_the_theory_of_independent_layers() -> None:
    net = network(width=2000)
    found, theory = ji.simulate(net, 48, record=RECORD), meanfield.propagate(net)
    assert found.config["sampler"] == "implicit (gaussian, tied)"
    for name in RECORD:
        error = np.abs(found[name].mean - theory[name].mean) / found[name].stderr
        assert np.all(error < 5), (name, error)


def test_the_whole_gradient_is_that_of_the_matrix() -> None:
    """The sum over all layers, against jax.grad; parts of layers are recorded at their sites."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: object = None) -> jax.Array:
        return jax.random.normal(key, shape, jnp.float32) * 0.5

    net = network(initializer=draw, bias_variance=0.0, residual=ji.Residual(0.8, 0.6))
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    run = ji.simulate(net, [5], x=x, keep_seeds=True, record=["update_ratio", "weight_grad_norm"])
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 5), (5, 4))
    w, r = draw(keys[1, 0], (6, 6)), vector(keys[0, 1], 6) / jnp.sqrt(6.0)

    def loss(w: jax.Array) -> jax.Array:
        z = x @ w
        for _ in range(3):
            z = 0.8 * z + 0.6 * jnp.tanh(z) @ w
        return jnp.sum(z * r[None])

    size, norm = (float(jnp.linalg.norm(v)) for v in (jax.jit(jax.grad(loss))(w), w))
    assert run.parameters is not None and run.parameters.names == ("W",)
    for name, want in (("norm", norm), ("gradient_norm", size), ("gradient_ratio", size / norm)):
        np.testing.assert_allclose(getattr(run.parameters, name).samples, [[want]], rtol=1e-4)
    np.testing.assert_allclose(run.update_ratio.samples, run.weight_grad_norm.samples / norm, rtol=1e-5)


def of_the_matrix(sampler: str, root: int) -> dict[str, np.ndarray]:
    run = ji.simulate(network(**LINEAR), SEEDS, sampler=sampler, record=["log_second_moment", "update_ratio"],
                      keep_seeds=True, root=root, batch=200)  # fmt: skip
    assert run.parameters is not None
    found = {name: stat.samples[:, 0] for name, stat in run.parameters.statistics()}
    return found | {
        "update_ratio": run.update_ratio.samples[:, 0],
        "log": run.log_second_moment.samples[:, -1, 0],
    }


def at_norm_1(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """|x W^6|^2 / |W|^12 varies less than either."""
    return found | {"log": found["log"] - 12 * np.log(found["norm"])}


def test_the_whole_matrix_never_formed_has_the_law_of_drawn() -> None:
    """The twin: norms that know nothing of what was seen of the matrix, those of other ones."""
    drawn, found = (of_the_matrix(sampler, i) for i, sampler in enumerate(("materialized", "implicit")))
    same_law(at_norm_1(drawn), at_norm_1(found))
    other_law(at_norm_1(drawn), at_norm_1(found | {"norm": np.roll(found["norm"], 1)}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"width": [6, 6, 6, 5]}, "width"), ({"input_width": 5}, "width"), ({"spatial": Spatial(4)}, "tied")],
)
def test_needs_one_square_matrix(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        network(**changes)


def test_what_is_not_said_of_tied_weights() -> None:
    with pytest.raises(TypeError, match="tied"):
        network(tied=1)
    with pytest.raises(ValueError, match="tied"):
        meanfield.kernels(network(), np.ones((1, 6)))
