"""Which sites a model has: traced and planned, nothing compiled; and what they measure, for those with twins."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo_models as zoo
from flax import nnx

import jaxinit as ji
from jaxinit.probe import probe, watch


def shapes_of(case: zoo.Case) -> tuple[Any, Any]:
    """Parameters and state of the case's model, as shapes."""
    from jaxinit.models import marked

    model = marked(case.model, train=case.train)
    args = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), (case.x,))
    return jax.eval_shape(model.init, jax.random.key(0), args)


def layout_of(case: zoo.Case, **more: Any) -> ji.Propagation:
    """The record of a run of zeros: sites without figures."""
    params, state = shapes_of(case)
    look = watch(case.model, params, case.x, state=state, train=case.train, **more)
    zeros = jax.eval_shape(look, params, case.x, None, state)
    return look.record(jax.tree.map(lambda v: np.zeros(v.shape, v.dtype), zeros))


@pytest.mark.parametrize("name", zoo.CASES)
def test_sites(name: str) -> None:
    case = zoo.CASES[name]
    found = layout_of(case)
    assert tuple(s.name + "*" * s.activation for s in found.layout) == case.sites
    assert found.opaque == () and found.sites == tuple(s.name for s in found.layout)
    for site in found.layout:
        assert site.batch_axis == case.axis, site
        assert site.shape[case.axis] == len(case.x), site
    assert found.parameters is not None
    for site in found.layout:
        assert set(site.parameters) <= set(found.parameters.names), site
        if site.kind in ("Dense", "Linear", "Conv", "Embed", "dot_general"):
            assert site.parameters, site


def test_the_model_is_left_as_it_was() -> None:
    module = zoo.Pair(nnx.Rngs(0))
    call = zoo.Pair.__call__
    before = str(nnx.graphdef(module))
    layout_of(zoo.Case(module, zoo.X, ()))
    assert zoo.Pair.__call__ is call and "__call__" not in vars(zoo.Sub)
    assert str(nnx.graphdef(module)) == before
    layout_of(zoo.CASES["nnx jit"])
    graph, state = nnx.split(zoo.NnxJitted(nnx.Rngs(0)))
    later = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, zoo.X)
    assert "jit" in str(later) and "jaxinit_mark" not in str(later)


def test_marks_are_seen_after_the_model_has_run() -> None:
    """Caches of jit hold traces without marks, or with those of another module."""
    model = zoo.NnxJitted(nnx.Rngs(0))
    model(jnp.asarray(zoo.X))
    assert layout_of(zoo.CASES["nnx jit"]).sites == ("a", "b", "output")


@pytest.mark.parametrize(
    "sites", ["ops", "all", "layers/*", ["out", "*/fc"], lambda name: name.endswith("fc")]
)
def test_choices_of_sites(sites: Any) -> None:
    found = layout_of(zoo.CASES["scan"], sites=sites).sites
    fc = [f"layers[{n}]/fc" for n in range(3)]
    if sites == "ops" or sites == ["out", "*/fc"]:
        assert list(found) == [*fc, "out"]
    elif callable(sites):
        assert list(found) == fc
    elif sites == "all":
        assert {"layers[1]/fc:in", "layers[1]:in", "input", "out:in", *fc} <= set(found)
    else:
        assert all(name.startswith("layers[") for name in found) and set(fc) <= set(found)


def test_the_output_of_another_method_is_a_site() -> None:
    class Encoder(nn.Module):
        def setup(self) -> None:
            self.d = nn.Dense(4)

        def __call__(self, x: Any) -> Any:
            return self.d(x)

        def encode(self, x: Any) -> Any:
            return nn.tanh(self(x))

    class Other(zoo.Pair):
        encode = Encoder.encode

    for model, own in ((Encoder(), ("d",)), (Other, ("a", "b"))):
        for method in ("encode", lambda module, x: module.encode(x)):
            found = layout_of(zoo.Case(model, zoo.X, ()), method=method).sites
            assert found == (*own, "output")


def test_a_kernel_made_with_state_is_a_kernel() -> None:
    """The layer's value keeps its name, whatever products are taken of its kernel alone."""

    class Bounded(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            return nn.SpectralNorm(nn.Dense(4, name="d"))(x, update_stats=train)

    for train in (False, True):
        found = layout_of(zoo.Case(Bounded(), zoo.X, (), train=train))
        (site,) = (s for s in found.layout if s.name == "d")
        assert site.kind == "Dense" and site.batch_axis == 0
        assert np.isfinite(found["weight_grad_norm"].mean[found.sites.index("d")])


def test_what_cannot_be_looked_into_is_listed() -> None:
    class Opaque(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            d = nn.Dense(6, name="d")
            if self.is_initializing():
                d(x)
            body = lambda m, c: (c[0] + 1, m(c[1]))  # noqa: E731
            return nn.while_loop(lambda m, c: c[0] < 2, body, d, (0, x), broadcast_variables="params")[1]

    found = layout_of(zoo.Case(Opaque(), zoo.X, ()), backward=False)
    assert len(found.opaque) == 1 and "while" in found.opaque[0] and "d" in found.opaque[0]


def test_scanned_and_unrolled_agree() -> None:
    """Every iteration of a rematerialized scan against the layers written out, and the stacked parameters."""
    params = zoo.Stack().init(jax.random.key(1), jnp.asarray(zoo.X))["params"]
    unrolled = {"out": params["out"]} | {
        f"layers_{n}": jax.tree.map(lambda v, n=n: v[n], params["layers"]) for n in range(3)
    }
    runs = []
    for model, p in ((zoo.Stack(remat=True), params), (zoo.Unrolled(), unrolled)):
        look = watch(model, p, zoo.X)
        runs.append(look.record(jax.jit(look)(p, jnp.asarray(zoo.X))))
    scanned, twin = runs
    assert twin.sites == tuple(s.replace("[", "_").replace("]", "") for s in scanned.sites)
    for name, stat in twin.statistics():
        np.testing.assert_allclose(scanned[name].mean, stat.mean, rtol=1e-4, atol=2e-5, err_msg=name)
    assert scanned.parameters is not None and twin.parameters is not None
    for n, parameter in enumerate(scanned.parameters.names):
        other = twin.parameters.index(parameter.replace("[", "_").replace("]", ""))
        for name, stat in scanned.parameters.statistics():
            want = dict(twin.parameters.statistics())[name].mean[other]
            np.testing.assert_allclose(stat.mean[n], want, rtol=1e-4, err_msg=f"{parameter} {name}")


def test_branches_not_taken_and_values_not_used(tmp_path: Any) -> None:
    run = probe(zoo.Branches(), zoo.X, seeds=3, keep_seeds=True)
    b, a, out = range(3)
    assert run.layout[a].branch == 1 and run.layout[b].branch == 0
    assert run["second_moment"].defined[a].max() == 0 and np.all(np.isnan(run["second_moment"].mean[a]))
    assert np.all(run["second_moment"].defined[[b, out]] == 3)
    assert run["grad_second_moment"].defined[a].max() == 0
    loaded = ji.load(run.save(tmp_path / "run.npz"))
    assert loaded.layout == run.layout and loaded.parameters.names == run.parameters.names  # type: ignore[union-attr]
    assert np.array_equal(loaded["second_moment"].samples, run["second_moment"].samples, equal_nan=True)
