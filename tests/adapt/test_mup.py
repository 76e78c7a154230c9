"""`mup_table` against the rules of the paper, `coordinate_check` against SciPy and a parametrization that fails."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats

from jaxinit import plot
from jaxinit.adapt import _mup_check as check
from jaxinit.adapt import coordinate_check, mup_learning_rates, mup_table
from jaxinit.records import WidthTransfer, load

X = np.random.default_rng(0).normal(size=(16, 8)).astype("f4")


class Net(nn.Module):
    width: int
    transfers: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Dense(self.width, name="first")(x))
        x = nn.relu(nn.Dense(self.width, name="hidden")(x))
        out = nn.Dense(2, name="out", kernel_init=nn.initializers.normal(0.2))(x)
        return out * (16 / self.width) if self.transfers else out


class Conv(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, width, (3, 3), rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.more = nnx.Conv(width, 2 * width, (3, 3), rngs=rngs)
        self.out = nnx.Linear(2 * width, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(nnx.relu(self.more(self.norm(self.conv(x)))).mean(axis=(1, 2)))


class Attention(nn.Module):
    """Its last kernel, (out, in), is transposed before it multiplies."""

    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(9, self.width, name="embed")(tokens)
        attention = nn.MultiHeadDotProductAttention(self.width // 4, dtype=self.dtype, name="att")
        out = self.param("out", nn.initializers.normal(0.1), (9, self.width))
        return attention(x, x) @ out.astype(self.dtype or out.dtype).T


def test_roles_and_factors() -> None:
    table = mup_table(Net, 16, 64, X)
    found = {r.parameter: (r.role, r.init, r.adam, r.sgd, r.output) for r in table}
    assert found["first/kernel"] == ("input", 1, 1, 4, 1) and found["first/bias"] == ("bias", 1, 1, 4, 1)
    assert found["hidden/kernel"] == ("hidden", 0.5, 0.25, 1, 1)
    assert found["out/kernel"] == ("output", 1, 1, 4, 0.25) and found["out/bias"] == ("fixed", 1, 1, 1, 1)
    without = mup_table(Net, 16, 64, X, multiplier=False)["out/kernel"]
    assert (without.init, without.adam, without.sgd, without.output) == (0.25, 0.25, 0.25, 1)
    assert table["hidden/kernel"].own_init == pytest.approx(0.5) and table["out/kernel"].own_init == 1
    assert not table.notes


def test_roles_of_convolutions_heads_and_tables() -> None:
    conv = mup_table(lambda w: lambda rngs: Conv(w, rngs), 4, 8, np.ones((2, 6, 6, 3), "f4"))
    assert [r.role for r in conv if r.parameter.endswith("kernel")] == ["input", "hidden", "output"]
    assert conv["norm/scale"].role == "bias" and conv["conv/kernel"].growth_in == 1
    for dtype in (None, jnp.bfloat16):  # kernels are cast before they multiply
        heads = mup_table(lambda w, d=dtype: Attention(w, d), 8, 16, np.zeros((2, 5), int))
        roles = {r.parameter: (r.role, r.growth_in, r.growth_out) for r in heads}
        assert roles["embed/embedding"] == ("input", 1, 2)
        assert roles["att/query/kernel"] == roles["att/out/kernel"] == ("hidden", 2, 2)
        assert roles["out"] == ("output", 2, 1)
        assert len(heads.notes) == 1 and "attention" in heads.notes[0]


def test_factors_for_an_optimizer() -> None:
    table = mup_table(Net, 16, 64, X)
    params = jax.eval_shape(Net(64).init, jax.random.key(0), X)["params"]
    factors = mup_learning_rates(params, table)
    assert (factors["hidden"]["kernel"], factors["first"]["bias"]) == (0.25, 1.0)
    assert mup_learning_rates(params, table, "sgd")["first"]["bias"] == 4.0
    with pytest.raises(ValueError, match="params"):
        mup_learning_rates({"other": jnp.ones(3)}, table)


def test_slopes_and_intervals_are_least_squares() -> None:
    rng = np.random.default_rng(1)
    x, y = np.log([8.0, 16, 32, 64]), rng.normal(size=(4, 5)) + 0.3 * np.arange(4)[:, None]
    slope, error, freedom = check._fit(x, y)
    scipy = stats.linregress(np.repeat(x, 5), y.reshape(-1))
    assert (slope, error, freedom) == pytest.approx((scipy.slope, scipy.stderr, 18))
    for n in (4, 10, 40):
        assert check._student(n) == pytest.approx(stats.t.ppf(0.975, n), rel=3e-3)
    verdicts = [
        check._verdict(*v, 0.15) for v in ((-0.1, 0.1), (0.2, 0.5), (-0.6, -0.2), (0.1, 0.3), (np.nan, 1))
    ]
    assert verdicts == ["flat", "grows", "shrinks", "unclear", "unclear"]


def optimizer(width: int) -> Any:
    if width == 16:
        return optax.adam(0.01)
    table = mup_table(lambda w: Net(w, True), 16, width, X)
    scale = optax.stateless(lambda u, _: jax.tree.map(lambda a, f: a * f, u, mup_learning_rates(u, table)))
    return optax.chain(optax.adam(0.01), scale)


@pytest.fixture(scope="module")
def transferred() -> WidthTransfer:
    return coordinate_check(lambda w: Net(w, True), [16, 64, 256], X, optimizer=optimizer, steps=2, seeds=4)


def test_a_parametrization_that_transfers(transferred: WidthTransfer) -> None:
    assert transferred, transferred.wrong
    assert transferred.log_rms.shape == (2, 3, 4, 3, 3) and np.isneginf(transferred.log_rms[1, :, :, 0]).all()
    assert (
        transferred.at("out", "value", 0).verdict == "shrinks" and transferred.at("out", "value", 0).readout
    )
    assert (transferred.loss[:, :, -1] < transferred.loss[:, :, 0]).all()


def test_one_that_does_not() -> None:
    """Twin: the same rate for all widths."""
    fails = coordinate_check(Net, [16, 64, 256], X, optimizer=optax.adam(0.01), steps=2, seeds=4)
    assert not fails and fails.at("hidden").low > 0.4 and fails.at("out").verdict == "grows"


def test_values_and_changes_are_those_of_a_loop_by_hand(transferred: WidthTransfer) -> None:
    key = jax.random.fold_in(jax.random.key(0), 2)
    params = Net(16, True).init(key, X)["params"]
    h = [X @ params["first"]["kernel"]]
    h.append(np.maximum(h[0], 0) @ params["hidden"]["kernel"])
    found = transferred.log_rms[0, 0, 2, 0, :2]
    assert found == pytest.approx([0.5 * np.log(np.mean(np.square(v))) for v in h], rel=1e-4)


def test_the_record_saves_and_draws_itself(transferred: WidthTransfer, tmp_path: Any) -> None:
    again = load(transferred.save(tmp_path / "w.npz"))
    assert again.slopes == transferred.slopes and len(again.plot().axes) == 2
    assert plot.width_transfer(again, step=1).axes[1].get_title() == "change after 1 step"
    table = mup_table(Net, 16, 64, X)
    assert repr(load(table.save(tmp_path / "t.npz"))) == repr(table)


def test_the_program_lowers_for_accelerators() -> None:
    from jaxinit.probe import products

    run = check._program(products(Net(8), (X,)), optax.sgd(0.1), 1, None)
    traced = jax.jit(run).trace(jax.random.key(0), np.arange(2, dtype=np.uint32), (jnp.asarray(X),), None)
    traced.lower(lowering_platforms=("cuda", "tpu"))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least three"):
        coordinate_check(Net, [8, 16], X, optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match="labels"):
        coordinate_check(Net, [8, 16, 32], X, optimizer=optax.sgd(0.1), labels=np.ones(16))
    with pytest.raises(ValueError, match="width"):
        mup_table(lambda w: Net(8), 8, 16, X)
    with pytest.raises(TypeError, match="model_fn"):
        mup_table(Net(8), 8, 16, X)
