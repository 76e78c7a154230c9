"""`calibrate`: layer-sequential unit variance, held against NumPy, Flax's own intermediates and plain repetition."""

import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo_models as zoo
from flax import nnx

from jaxinit.adapt import _lsuv, _pieces, calibrate
from jaxinit.adapt._calibrate import _METHODS
from jaxinit.cli import _calibrate, main
from jaxinit.records import Calibration, load

KEY = jax.random.key(0)
RNG = np.random.default_rng(7)
X = RNG.normal(size=(12, 6)).astype("f4") + 0.3


def spoiled(model: Any, x: Any, seed: int = 1) -> Any:
    """The model's own parameters, each kernel off by up to ten times either way."""
    rng = np.random.default_rng(seed)
    drawn = jax.jit(model.init)(KEY, x)["params"]
    return jax.tree.map(lambda p: p * np.float32(10.0 ** rng.uniform(-1, 1)), drawn)


def square(x: Any) -> float:
    return float(np.mean(np.square(np.asarray(x, np.float64))))


class Bent(nn.Module):
    """Layers of one stack after another: homogeneous, then not; the third has a bias that is not 0."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.leaky_relu(nn.Dense(8, name="a")(x), 0.2)
        x = nn.relu(nn.Dense(8, name="b")(x))
        x = nn.tanh(nn.Dense(8, name="c", bias_init=nn.initializers.normal(0.3))(x))
        return nn.Dense(3, name="d")(x)


@pytest.fixture(scope="module")
def bent() -> tuple[Any, Any, Calibration]:
    params = spoiled(Bent(), X)
    return params, *calibrate(Bent(), X, KEY, params=params, tolerance=1e-4)


def by_hand(params: Any) -> dict[str, float]:
    """Layer-sequential unit variance as in the paper, layer by layer, by a search for each scale."""
    act = {
        "a": lambda v: np.where(v > 0, v, 0.2 * v),
        "b": lambda v: np.maximum(v, 0),
        "c": np.tanh,
        "d": None,
    }
    h, found = X.astype(np.float64), {}
    for name, phi in act.items():
        w, b = (np.asarray(params[name][k], np.float64) for k in ("kernel", "bias"))
        scale = 1.0
        for _ in range(200):
            scale /= np.sqrt(square(h @ (w * scale) + b))
        found[name] = scale
        h = h @ (w * scale) + b
        h = h if phi is None else phi(h)
    return found


def test_as_by_hand(bent: Any) -> None:
    params, new, record = bent
    hand = by_hand(params)
    assert [s.name for s in record] == list(hand) and record.ok
    for name, scale in hand.items():
        assert np.isclose(record[name].factor, scale, rtol=1e-3)
        assert np.allclose(new[name]["kernel"], params[name]["kernel"] * scale, rtol=1e-3)
        assert np.array_equal(new[name]["bias"], params[name]["bias"])
        assert not new[name]["kernel"].committed  # else every program would be compiled once more
        assert abs(record[name].after - 1) < 1e-4
    # Twin: scales of single-layer rules, not sequential, are not these.
    assert not np.isclose(record["b"].factor, 1 / np.sqrt(record["b"].before), rtol=0.2)


@pytest.mark.parametrize(
    "chosen", [{"include": ["a", "c/kernel"]}, {"exclude": ["b/**", "d"]}], ids=["in", "out"]
)
def test_only_what_is_asked_for_is_scaled(bent: Any, chosen: dict[str, Any]) -> None:
    params, everything, _ = bent
    new, record = calibrate(Bent(), X, KEY, params=params, tolerance=1e-4, **chosen)
    assert [s.status for s in record] == ["converged", "excluded"] * 2 and record.ok
    assert [s.parameters for s in record] == [("a/kernel",), (), ("c/kernel",), ()]
    _, seen = Bent().apply({"params": new}, X, capture_intermediates=True)
    found = {n: square(seen["intermediates"][n]["__call__"][0]) for n in "abcd"}
    assert all((abs(q - 1) < 1e-3) == (n in "ac") for n, q in found.items())
    same = {n: {k: np.array_equal(v, params[n][k]) for k, v in new[n].items()} for n in "abcd"}
    assert same == {n: {"kernel": n in "bd", "bias": True} for n in "abcd"}
    assert not np.array_equal(
        everything["b"]["kernel"], params["b"]["kernel"]
    )  # twin: scaled unless left out


def test_no_more_passes_than_asked(bent: Any) -> None:
    params, _, record = bent
    assert 1 < record["c"].iterations <= 10  # a bias that is not scaled with it
    _, once = calibrate(Bent(), X, KEY, params=params, tolerance=1e-4, passes=1)
    assert {s.iterations for s in once} == {1} and once["c"].status == "not converged"
    assert (
        "after 1 passes" in once["c"].why and [s.status for s in once if s.name != "c"] == ["converged"] * 3
    )


def test_the_way_through_the_network_does_not_matter(bent: Any, monkeypatch: Any) -> None:
    """What is known of powers, and what follows from it without a further run, changes no number."""
    params, _, record = bent

    def one_by_one(case: Any) -> Any:
        count = len(case.own)
        known = case.products.dependence(case.own, case.zero)
        return known._replace(degrees=np.eye(count), bends=np.tril(np.ones((count, count), bool), -1))

    monkeypatch.setattr(_lsuv, "dependence_of", one_by_one)
    _, plain = calibrate(Bent(), X, KEY, params=params, tolerance=1e-4)
    assert np.allclose([s.factor for s in plain], [s.factor for s in record], rtol=1e-3)
    monkeypatch.setattr(_lsuv, "_followed", lambda *args: False)
    _, measured = calibrate(Bent(), X, KEY, params=params, tolerance=1e-4)
    for name in ("factor", "before", "after"):
        a, b = ([getattr(s, name) for s in r] for r in (measured, record))
        assert np.allclose(a, b, rtol=1e-4), name
    assert measured.evaluations > record.evaluations
    _, seen = Bent().apply({"params": params}, X, capture_intermediates=True)
    drawn = [square(seen["intermediates"][s.name]["__call__"][0]) for s in record]
    assert np.allclose([s.before for s in record], drawn, rtol=1e-4)


def test_sites_of_a_language_model_by_its_own_intermediates() -> None:
    """Integers in; attention; normalization; an embedding used twice is scaled once."""
    model, x = zoo.Language(), zoo.TOKENS
    new, record = calibrate(model, x, KEY, params=spoiled(model, x))
    _, seen = jax.jit(lambda p: model.apply({"params": p}, x, capture_intermediates=True))(new)
    seen = seen["intermediates"]
    inside = seen["att"]
    values = {
        "embed": seen["embed"], "up": seen["up"], "down": seen["down"], "att/out": inside["out"],
        **{f"att/{n}": inside[n] for n in ("query", "key", "value")},
    }  # fmt: skip
    for name, value in values.items():
        assert record[name].status == "converged"
        assert abs(square(value["__call__"][0]) - 1) < 0.01, name
    assert record["output"].status == "shared" and "embed" in record["output"].why
    assert record.evaluations <= 7 and {s.iterations for s in record} == {0, 1}


class Odd(nn.Module):
    """Everything that cannot be calibrated."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        dead = nn.Dense(4, name="dead")(0 * x)
        fixed = nn.WeightNorm(nn.Dense(4, use_bias=False, name="normed"), use_scale=False)(x)
        branch = nn.Dense(6, name="zero", kernel_init=nn.initializers.zeros)(nn.relu(x))
        biased = nn.Dense(4, name="biased", bias_init=nn.initializers.constant(2.0))(x)
        kept = nn.Dense(4, name="kept")(x)
        w = self.param("w", nn.initializers.normal(1.0), (6, 4))
        taken = jax.lax.cond(x.sum() > 1e6, lambda v: v @ w, lambda v: v[:, :4], x)
        return dead + fixed + nn.Dense(4, name="last")(x + branch) + biased + kept + taken


def test_what_cannot_be_calibrated_says_why() -> None:
    model = Odd()
    params = jax.jit(model.init)(KEY, X)["params"]
    new, record = calibrate(model, X, KEY, params=params, exclude="kept/*")
    status = {s.name: s.status for s in record}
    assert status.pop("last") == "converged"
    assert status == {
        "dead": "dead", "normed": "constant", "zero": "zero-initialized branch kept", "biased": "not converged",
        "kept": "excluded", next(n for n in status if "w" in n and n != "normed"): "unused",
    }  # fmt: skip
    assert "bias" in record["biased"].why and not record.ok
    for name in ("dead", "zero", "kept", "normed", "biased"):
        assert np.array_equal(new[name]["kernel"], params[name]["kernel"]), name


def test_scanned_layers_and_repeated_ones() -> None:
    """Every layer of a stack is a site; a cell is one site over all steps of time."""
    model = zoo.Stack()
    new, record = calibrate(model, zoo.X, KEY, params=spoiled(model, zoo.X))
    assert [s.name for s in record] == ["layers[0]/fc", "layers[1]/fc", "layers[2]/fc", "out"] and record.ok
    twin = {f"layers_{n}": jax.tree.map(lambda v, n=n: v[n], new["layers"]) for n in range(3)}
    _, seen = zoo.Unrolled().apply({"params": {**twin, "out": new["out"]}}, zoo.X, capture_intermediates=True)
    for n in range(3):
        assert abs(square(seen["intermediates"][f"layers_{n}"]["fc"]["__call__"][0]) - 1) < 0.01
    _, cells = calibrate(zoo.Recurrent(), zoo.SERIES, KEY)
    assert len(cells) == 8 and cells.ok


class Image(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        x = x + nn.Conv(4, (3, 3), name="skip")(x)
        x = nn.DenseGeneral((2, 3), dtype=jnp.bfloat16, name="heads")(x.mean(axis=(1, 2)))
        return nn.Dense(5, name="head")(x.reshape(-1, 6))


def test_convolutions_orthonormal_start_several_batches_and_a_target() -> None:
    batches = [zoo.IMAGES, 2 * zoo.IMAGES]
    new, record = calibrate(Image(), batches, KEY, start="orthonormal", target="preserve")
    wanted = 2.5 * square(zoo.IMAGES)
    assert np.allclose([s.target for s in record], wanted)
    assert np.allclose([s.after for s in record], wanted, rtol=0.01)
    assert record.evaluations <= 3  # conv and skip are of one degree, head sums two that are
    for name, rows in (("conv", 27), ("skip", 36), ("heads", 4)):
        w = np.asarray(new[name]["kernel"]).reshape(rows, -1)
        gram = w @ w.T if rows < w.shape[1] else w.T @ w
        assert np.allclose(gram, gram[0, 0] * np.eye(len(gram)), atol=1e-5 * gram[0, 0])


def test_means_into_biases_and_variance() -> None:
    new, record = calibrate(Bent(), X, KEY, biases="centre", target={"a": 2.0, "c": 0.5})
    out = Bent().apply({"params": new}, X, capture_intermediates=True)[1]["intermediates"]
    for name, target in (("a", 2.0), ("c", 0.5)):
        value = np.asarray(out[name]["__call__"][0])
        assert abs(value.var() / target - 1) < 0.02 and abs(value.mean()) < 0.02 * value.std()
    assert record["b"].status == "excluded" and np.isnan(record["b"].target)


def test_nnx_gives_a_module() -> None:
    def made(rngs: nnx.Rngs) -> nnx.Module:
        return nnx.Sequential(nnx.Linear(6, 8, rngs=rngs), nnx.relu, nnx.Dropout(0.5, rngs=rngs),
                              nnx.Linear(8, 2, rngs=rngs))  # fmt: skip

    given = made(nnx.Rngs(0))
    before = np.array(given.layers[0].kernel[...])
    module, record = calibrate(given, X, KEY)
    assert isinstance(module, nnx.Sequential) and record.ok
    assert np.array_equal(before, given.layers[0].kernel[...])
    module.eval()
    assert abs(square(module(X)) - 1) < 0.01
    last, part = calibrate(given, X, KEY, include="layers/3/**")
    assert [s.status for s in part] == ["excluded", "converged"]
    assert np.array_equal(before, last.layers[0].kernel[...])
    assert not np.array_equal(last.layers[3].kernel[...], given.layers[3].kernel[...])
    fresh, _ = calibrate(lambda rngs: made(rngs), X, KEY)
    fresh.eval()
    assert abs(square(fresh(X)) - 1) < 0.01
    fresh.train()
    assert not np.array_equal(fresh(X), fresh(X))


class Normed(nnx.Module):
    """Beside its parameters it has averages and random numbers; `spare` is never called."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc, self.spare = nnx.Linear(6, 4, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.norm(self.drop(self.fc(x)))


def test_parameters_that_are_held(tmp_path: Any) -> None:
    import orbax.checkpoint as ocp

    held = nnx.eval_shape(lambda: Normed(nnx.Rngs(0)))
    state = nnx.state(Normed(nnx.Rngs(3)))
    state["fc"]["kernel"][...] = 5 * state["fc"]["kernel"][...]
    state["norm"]["mean"][...] = jnp.full(4, 7.0)
    kernel = np.asarray(state["fc"]["kernel"][...])
    for given in (state, nnx.to_pure_dict(state)):
        module, record = calibrate(lambda rngs: Normed(rngs), X, KEY, params=given)
        assert np.allclose(module.fc.kernel[...], kernel * record["fc"].factor, rtol=1e-5)
        assert np.array_equal(module.norm.mean[...], np.full(4, 7.0))
    alone = nnx.state(nnx.merge(nnx.graphdef(held), state), nnx.Param)
    module, again = calibrate(Normed(nnx.Rngs(1)), X, KEY, params=alone)
    assert again["fc"].factor == record["fc"].factor and not module.norm.mean[...].any()
    assert {s.name for s in record if s.status == "unused"} == {"spare/bias", "spare/kernel"} and record.ok

    model = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(3)])
    params = jax.tree.map(lambda p: 3 * p, jax.jit(model.init)(KEY, X)["params"])
    ocp.PyTreeCheckpointer().save(tmp_path / "step", {"params": params})
    expected, _ = calibrate(model, X, KEY, params=params)
    for given in (str(tmp_path / "step"), {"params": params}):
        found, _ = calibrate(model, X, KEY, params=given)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    with pytest.raises(ValueError, match="params.*float32.*float16"):
        calibrate(model, X, KEY, params=jax.tree.map(lambda p: p.astype(jnp.float16), params))


def test_half_precision_and_overflow() -> None:
    model = nn.Sequential(
        [nn.Dense(8, dtype=jnp.float16, param_dtype=jnp.float16), nn.relu, nn.Dense(8, dtype=jnp.float16)]
    )
    params = jax.jit(model.init)(KEY, X)["params"]
    params["layers_0"]["kernel"] = params["layers_0"]["kernel"] * jnp.float16(3e4)
    params["layers_2"]["kernel"] = params["layers_2"]["kernel"] * jnp.float32(3e4)
    new, record = calibrate(model, X.astype("f2"), KEY, params=params)
    assert record.ok and new["layers_0"]["kernel"].dtype == jnp.float16
    assert abs(square(model.apply({"params": new}, X.astype("f2"))) - 1) < 0.02


TRACES: list[int] = []


class Counted(nn.Module):
    depth: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        TRACES.append(1)
        for _ in range(self.depth):
            x = nn.tanh(nn.Dense(6)(x))
        return x


def test_as_many_programs_as_different_layers_and_for_every_platform(monkeypatch: Any) -> None:
    traces, programs = [], set()

    def compile(self: Any) -> None:
        for n, program in enumerate(self.programs):
            if program not in programs:
                self.lowered(n, lowering_platforms=("cuda", "tpu"))
            programs.add(program)

    monkeypatch.setattr(_pieces.Pieces, "compile", compile)
    for depth in (2, 6):
        model = Counted(depth)
        params = jax.eval_shape(model.init, KEY, X)["params"]
        params = jax.tree.map(lambda v: np.full(v.shape, 0.3 * (v.ndim > 1), v.dtype), params)
        TRACES.clear()
        for again in range(2):
            _, record = calibrate(model, X + again, KEY, params=params)
        traces.append(len(TRACES))
        assert record.ok and record.evaluations == 2  # as drawn, and once through
    assert traces[0] == traces[1] <= 4
    assert len(programs) == 3  # the first layer, those behind a tanh, and the last, whose value goes nowhere


def test_the_record_saves_and_shows_itself(bent: Any, tmp_path: Any) -> None:
    record = bent[2]
    again = load(record.save(tmp_path / "c.npz"))
    assert again.rows() == record.rows() and again.provenance == record.provenance
    assert "converged" in record._repr_html_() and len(record.rows()) == 4
    with pytest.raises(KeyError, match="nearest|mean"):
        record["aa"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"method": "lsuw"}, "lsuv"),
        ({"target": -1.0}, "positive"),
        ({"target": "units"}, "unit"),
        ({"target": {"x": 1.0}}, "patterns"),
        ({"include": "decoder/**"}, "patterns"),
        ({"start": "ortho"}, "orthonormal"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"passes": 0}, "passes"),
        ({"statistic": "second moment", "biases": "centre"}, "variance"),
        ({"params": {"a": np.zeros(3)}}, "params"),
        ({"key": 0}, "key"),
        ({"x": {"a": "b"}}, "x"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else None,
)
def test_bad_input(change: dict[str, Any], what: str) -> None:
    given = {"model": Bent(), "x": X, "key": KEY, **change}
    with pytest.raises((ValueError, TypeError), match=what):
        calibrate(**given)


def test_integers_have_no_moment_to_preserve() -> None:
    with pytest.raises(ValueError, match="integers"):
        calibrate(zoo.Language(), zoo.TOKENS, KEY, target="preserve")


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = """import flax.linen as nn
class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4, name="a")(x)) * self.param("gain", nn.initializers.constant(0.1), (1, 4))
        return nn.Dense(3, name="b")(x)
net = Net()
"""
    (tmp_path / "some_net.py").write_text(source)
    words = ["calibrate", f"{tmp_path / 'some_net.py'}:net", "--input", "8x6", "--exclude", "b/**"]
    assert main([*words, "--params", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main([*words, "--scales", "gian"]) == 2  # twin: no parameter of that name
    assert "gian" in capsys.readouterr().err
    assert main([*words, "--scales", "gain", "--json", "--out", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["parameters"]: row for row in told["sites"]}
    assert [row["status"] for row in told["sites"]] == ["converged", "converged", "excluded"] and told["ok"]
    assert load(tmp_path / "out" / "net.npz").rows()[:2] == told["sites"][:2]
    with np.load(tmp_path / "out" / "parameters.npz") as held:
        for name in ("a/kernel", "gain"):
            assert np.isclose(np.sqrt(square(held[name])), rows[name]["scale_after"])
        assert rows["gain"]["scale_after"] > 2 * 0.1  # of a ReLU's output <z^2> / 2 = 1/2 makes 1
    assert set(_calibrate.METHODS) == set(_METHODS)
