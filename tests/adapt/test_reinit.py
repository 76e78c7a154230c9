"""Redrawing by path rules, and the table of what each parameter got."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from flax.core import freeze
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxinit.initializers as ji
from jaxinit import records
from jaxinit.adapt import init_table, reinit

KEY = jax.random.key(0)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(32, (3, 3), name="conv", kernel_init=ji.he_normal())(x))
        x = nn.LayerNorm(name="norm")(x.reshape(x.shape[0], -1))
        x = nn.Dense(64, name="hidden", kernel_init=ji.orthogonal())(x)
        x = nn.MultiHeadDotProductAttention(4, name="attention")(x[:, None])[:, 0]
        return nn.Dense(10, name="head", kernel_init=jax.nn.initializers.glorot_uniform())(x)


@pytest.fixture(scope="module")
def variables():
    return Net().init(KEY, jnp.ones((1, 6, 6, 8)))


def test_first_match_wins_and_the_rest_is_kept(variables):
    rules = {
        "params/head/*": ji.zeros(),
        "params/norm/**": None,
        "**/kernel": ji.lecun_normal(),
        "**/bias": 0.5,
    }
    for tree in (variables, freeze(variables)):
        new = reinit(tree, rules, KEY)
        assert type(new) is type(tree) and jax.tree.structure(new) == jax.tree.structure(tree)
        new = new["params"]
        assert not np.any(new["head"]["kernel"]) and not np.any(new["head"]["bias"])
        assert np.array_equal(new["norm"]["bias"], variables["params"]["norm"]["bias"])
        assert np.all(np.asarray(new["hidden"]["bias"]) == 0.5)
        assert not np.array_equal(new["conv"]["kernel"], variables["params"]["conv"]["kernel"])
        assert abs(float(new["hidden"]["kernel"].std()) * 1152**0.5 - 1) < 0.02


def test_streams_follow_the_path(variables):
    whole = reinit(variables, {"**/kernel": ji.normal(1.0)}, KEY)["params"]
    part = reinit(variables, {"params/hidden/kernel": ji.normal(1.0)}, KEY)["params"]
    assert np.array_equal(whole["hidden"]["kernel"], part["hidden"]["kernel"])
    assert not np.array_equal(whole["hidden"]["kernel"][:10, :10], whole["head"]["kernel"][:10, :10])
    again = reinit(variables, {"**/kernel": ji.normal(1.0)}, jax.random.key(1))["params"]
    assert not np.array_equal(whole["hidden"]["kernel"], again["hidden"]["kernel"])


def test_nnx_states_and_boxes_and_layouts():
    model = nnx.Linear(8, 16, rngs=nnx.Rngs(0))
    nnx.update(model, reinit(nnx.state(model, nnx.Param), {"kernel": "orthogonal"}, KEY))
    assert np.allclose(model.kernel[...] @ model.kernel[...].T, np.eye(8), atol=2e-6)
    boxed = nn.Dense(4, kernel_init=nn.with_partitioning(ji.zeros(), ("a", None))).init(KEY, jnp.ones((1, 8)))
    new = reinit(boxed, {"**/kernel": ji.normal(1.0)}, KEY)["params"]["kernel"]
    assert new.names == ("a", None) and np.any(new.value)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    placed = jax.device_put(jnp.zeros((8, 4), jnp.bfloat16), NamedSharding(mesh, P("d")))
    w = reinit({"w": placed}, {"w": "he"}, KEY)["w"]
    assert w.sharding.is_equivalent_to(placed.sharding, 2) and w.dtype == jnp.bfloat16
    assert np.array_equal(w, reinit({"w": jnp.zeros((8, 4), jnp.bfloat16)}, {"w": "he"}, KEY)["w"])


def test_one_compiled_call_and_foreign_initializers(variables):
    from jaxinit.adapt._reinit import _draw

    before = _draw._cache_size()
    for seed in range(3):
        reinit(variables, {"**/kernel": jax.nn.initializers.ones}, jax.random.key(seed))
    assert _draw._cache_size() == before + 1


def test_bad_rules(variables):
    with pytest.raises(ValueError, match="params/hidden/kernel"):
        reinit(variables, {"params/hiden/kernel": "he"}, KEY)
    with pytest.raises(ValueError, match="params/attention/out/bias.*at least 2-D"):
        reinit(variables, {"**/bias": "he"}, KEY)
    with pytest.raises(ValueError, match=r"\*\*/kernel.*'he_normal'"):
        reinit(variables, {"**/kernel": "he_norml"}, KEY)
    with pytest.raises(TypeError, match="floating-point"):
        reinit({"n": jnp.arange(3)}, {"n": "he"}, KEY)
    with pytest.raises(TypeError, match="nnx.update"):
        reinit(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), {"kernel": "he"}, KEY)
    with pytest.raises(TypeError, match="rules"):
        reinit(variables, {}, KEY)


def test_table(variables):
    rows = init_table(Net(), jnp.ones((1, 6, 6, 8)))
    assert rows["params/conv/kernel"].matches == "he_normal"
    assert rows["params/conv/kernel"].asked == repr(ji.he_normal()) and rows["params/conv/kernel"].agrees
    assert rows["params/head/kernel"].matches == "glorot_uniform"
    assert rows["params/hidden/kernel"].law == "orthogonal" and rows["params/hidden/kernel"].agrees
    assert rows["params/attention/query/kernel"].matches == "lecun_normal"
    assert rows["params/norm/scale"].law == "ones" and rows["params/head/bias"].law == "zeros"
    assert (
        rows.table().row_count == len(rows.parameters) == len(rows.rows()) == len(jax.tree.leaves(variables))
    )
    with pytest.raises(KeyError, match="params/head/bias"):
        rows["params/head/bia"]


def test_table_tells_laws_apart_and_sees_a_wrong_one():
    big = (400, 300)
    params = {
        "a": ji.glorot_uniform()(KEY, big),
        "b": ji.he_normal(distribution="normal")(KEY, big),
        "c": jax.nn.initializers.truncated_normal(0.05)(KEY, big),
    }
    rows = init_table(params)
    assert rows["a"].matches == "glorot_uniform"
    assert rows["b"].matches == "he_normal(distribution='normal')"
    assert rows["c"].matches == f"variance {rows['c'].stddev ** 2 * 400:.3g} / fan_in"

    class Liar(nn.Module):
        kernel_init: object = ji.he_normal()

        @nn.compact
        def __call__(self, x):
            return x @ self.param("kernel", ji.lecun_normal(), (64, 64))

    assert init_table(Liar(), jnp.ones((1, 64)))["params/kernel"].agrees is False
    assert [rows[n].found for n in "ab"] == ["glorot_uniform", "he_normal(distribution='normal')"]
    assert rows["c"].found == f"truncated normal, {rows['c'].matches}"
    with pytest.raises(TypeError, match="init_table"):
        init_table(nn.Dense(3))


def test_table_takes_models_as_probe_does_and_is_a_record(tmp_path):
    """Factories and functions are drawn here; the table saves itself and tells what is not as asked."""
    factory = init_table(lambda rngs: nnx.Linear(64, 32, kernel_init=ji.he_normal(), rngs=rngs))
    assert factory["kernel"].matches == "he_normal" and factory["bias"].law == "zeros"
    pair = init_table((lambda key: {"w": ji.he_uniform()(key, (64, 32))}, lambda params, x: x @ params["w"]))
    assert pair["w"].matches == "he_uniform"
    with pytest.raises(TypeError, match=r"init_table\(model=\.\.\.\)"):
        init_table(nn.Dense)

    class Liar(nn.Module):
        kernel_init: object = ji.he_normal()

        @nn.compact
        def __call__(self, x):
            return x @ self.param("kernel", ji.lecun_normal(), (64, 64))

    found = init_table(Liar(), jnp.ones((1, 64)))
    assert [r.path for r in found.wrong()] == ["params/kernel"] and factory.wrong() == ()
    assert found.table().caption == "! 1 of 1 not as asked" and found.rows()[0]["agrees"] is False
    assert records.load(found.save(tmp_path / "table.npz")) == found
    assert "params/kernel" in found._repr_html_()


def test_kurtosis_constants():
    from scipy import stats

    from jaxinit.adapt._init_table import KURTOSIS

    laws = {
        "normal": stats.norm(),
        "truncated_normal": stats.truncnorm(-2, 2),
        "uniform": stats.uniform(-1, 2),
    }
    for name, law in laws.items():
        m2, m4, m6, m8 = (law.expect(lambda x, k=k: x**k) for k in (2, 4, 6, 8))
        b4, b6, b8 = m4 / m2**2, m6 / m2**3, m8 / m2**4
        assert KURTOSIS[name] == pytest.approx(
            (b4 - 3, b8 - 4 * b4 * b6 + 4 * b4**3 - b4**2), rel=1e-6, abs=1e-6
        )
