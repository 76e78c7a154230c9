"""The entry point: seeds, batches, chunks, devices, drawn inputs, optimizers; and lowering for accelerators."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zoo_models as zoo
from flax import nnx

import jaxinit as ji
from jaxinit.probe import probe, watch

SMALL = ["second_moment", "grad_second_moment", "grad_correlation"]
TWO, X = zoo.Two(), zoo.X


def same(a: ji.Propagation, b: ji.Propagation, seeds: Any = slice(None)) -> None:
    for name, stat in a.statistics():
        np.testing.assert_allclose(stat.samples[seeds], b[name].samples, rtol=2e-5, err_msg=name)  # type: ignore[index]


@pytest.fixture(scope="module")
def run() -> ji.Propagation:
    return probe(TWO, X, seeds=8, record=SMALL, keep_seeds=True, optimizer=optax.sgd(0.1))


def test_a_seed_names_a_network_whatever_the_split(run: ji.Propagation) -> None:
    one = probe(
        TWO, X, seeds=[5, 6], record=SMALL, keep_seeds=True, optimizer=optax.sgd(0.1), devices=1, chunk=1
    )
    same(run, one, slice(5, 7))
    assert run.count == 8 and run["second_moment"].samples.shape == (8, 2, 3)  # type: ignore[union-attr]


def test_the_same_question_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal modules and batches of one shape share a program; a function that came to mean something else does not."""
    scale, programs = [1.0], []
    monkeypatch.setattr("jaxinit.ensemble.run", lambda program, *_, **__: programs.append(program) or 1 / 0)

    def ask(model: Any, x: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            probe(model, x, seeds=1)

    def apply(params: Any, x: Any) -> Any:
        return x @ params["w"] * scale[0]

    plain = (lambda key: {"w": jax.random.normal(key, (6, 2))}, apply)
    for model in (zoo.Two(), plain, zoo.Pair):
        programs.clear()
        ask(model, X)
        ask(zoo.Two() if isinstance(model, nn.Module) else model, X + 1)
        assert programs[0] is programs[1]
    ask(plain, X)
    scale[0] = 2.0
    ask(plain, X)
    assert programs[-1] is not programs[-2]


def test_updates_of_an_optimizer(run: ji.Propagation) -> None:
    """Of SGD: learning rate times the gradient ratio."""
    assert run.parameters is not None
    update, ratio = run.parameters.update_ratio, run.parameters.gradient_ratio
    np.testing.assert_allclose(update.mean, 0.1 * ratio.mean, rtol=1e-5)  # type: ignore[union-attr]


def test_gradients_of_the_random_loss_are_of_its_law(run: ji.Propagation) -> None:
    """At the output dL/dz = r: mean square 1/n_out, the same for every input."""
    stat = probe(TWO, X, seeds=400, record=["grad_second_moment", "grad_correlation"])
    g = stat["grad_second_moment"]
    assert np.all(np.abs(g.mean[1] - 1 / 4) < 5 * g.stderr[1])
    assert np.all(np.abs(g.mean[1] - 1 / 3) > 5 * g.stderr[1])  # another n_out would be seen
    np.testing.assert_allclose(stat["grad_correlation"].mean[1], 1.0, rtol=1e-6)


def test_several_batches_are_averaged_for_each_seed(run: ji.Propagation) -> None:
    other = X[::-1] * 2
    both = probe(TWO, [X, other], seeds=8, record=SMALL, keep_seeds=True, optimizer=optax.sgd(0.1))
    first, second = run["second_moment"].samples, 4 * run["second_moment"].samples[..., ::-1]  # type: ignore[index]
    biasless = both["second_moment"].samples[:, 0]  # type: ignore[index]
    np.testing.assert_allclose(biasless, (first[:, 0] + second[:, 0]) / 2, rtol=1e-5)  # type: ignore[index]
    assert both.count == 8


def test_inputs_are_drawn_where_shapes_are_given() -> None:
    drawn = probe(
        TWO, jax.ShapeDtypeStruct((64, 6), jnp.float32), seeds=64, record=["second_moment"], backward=False
    )
    q = drawn["second_moment"]  # lecun: mean square of the first layer is that of the inputs, 1
    assert drawn.pooled == 64 and abs(q.mean[0, 0] - 1) < 5 * q.stderr[0, 0]


def test_an_nnx_module_is_its_own_draw() -> None:
    module = zoo.Pair(nnx.Rngs(3))
    found = probe(module, X, seeds=1, record=["second_moment"], backward=False, devices=1)
    z = X @ np.asarray(module.a.kernel[...])
    np.testing.assert_allclose(found["second_moment"].mean[0], np.mean(z**2, axis=1), rtol=1e-5)


class Deep(nn.Module):
    """A signal that leaves the range in which squares are float32 numbers."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for n in range(5):
            x = nn.Dense(6, use_bias=False, kernel_init=nn.initializers.normal(1e-6), name=f"l{n}")(x)
        return jax.lax.stop_gradient(nn.Dense(1, name="side")(x)) + nn.Dense(1, name="out")(x * 1e30 * 1e30)


def test_small_numbers_infinite_ones_and_absent_gradients() -> None:
    found = probe(
        Deep(), X, seeds=4, record=["log_second_moment", "grad_second_moment", "nonfinite_fraction"]
    )
    logs = found["log_second_moment"].mean[:5, 0]
    np.testing.assert_allclose(
        np.diff(logs), np.log(6e-12), atol=1.5
    )  # 1e-6 each layer: 1e-60 squared at the fifth
    side, out = found.sites.index("side"), found.sites.index("out")
    assert found["grad_second_moment"].defined[side].max() == 0
    assert found["grad_second_moment"].defined[out].min() == 4
    big = probe(nn.Dense(3, dtype=jnp.float16, kernel_init=nn.initializers.constant(6e4)), X * 100, seeds=1, devices=1,
                record=["second_moment", "nonfinite_fraction"], backward=False)  # fmt: skip
    assert big["nonfinite_fraction"].mean[0] > 0 and np.isinf(big["second_moment"].mean).any()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["conv", "scan, remat", "cond", "nnx rnn", "functions"])
def test_lowers_for_accelerators(name: str, platform: str) -> None:
    from jaxinit.models import marked

    case = zoo.CASES[name]
    model = marked(case.model, train=case.train)
    key, args = jax.random.key(0), (jnp.asarray(case.x),)
    params, state = jax.eval_shape(model.init, key, args)
    look = watch(case.model, params, case.x, state=state, train=case.train)
    jax.jit(look).trace(params, args[0], None, state).lower(lowering_platforms=(platform,))
