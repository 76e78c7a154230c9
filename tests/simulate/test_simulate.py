"""simulate: implicit against materialized by law, exact identities, far ranges, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forgetful import forgotten_projections
from laws import other_law, same_law
from programs import chunks

import jaxinit as ji
from jaxinit._core.normals import vector
from jaxinit.records import STATISTICS
from jaxinit.simulate import _simulate

SEEDS = 4000
KINDS = {
    "relu": {"activation": "relu", "weight_variance": 2.0},
    "tanh with bias": {"activation": "tanh", "weight_variance": 1.5, "bias_variance": 0.3},
    "leaky, widths vary": {"activation": "leaky_relu", "weight_variance": 1.0, "width": [5, 2, 6]},
    "orthogonal": {"activation": "tanh", "weight_variance": 1.2, "ensemble": "orthogonal"},
    "orthogonal, widths vary": {
        "activation": "relu", "weight_variance": 2.0, "ensemble": "orthogonal", "width": [6, 9, 7],
    },
}  # fmt: skip


def network(**changes: object) -> ji.Network:
    return ji.Network(**{"depth": 3, "width": 8, "input_width": 8, **changes})  # type: ignore[arg-type]


def samples(run: ji.Propagation) -> dict[str, np.ndarray]:
    """Per-seed figures at the first and last site, and products that tie forward to backward."""
    out = {}
    for name, stat in run.statistics():
        flat = stat.samples.reshape(stat.count, len(run.sites), -1)
        for site in (0, -1):
            x = flat[:, site, 0]
            out[f"{name} {run.sites[site]}"] = x[np.isfinite(x)]
    forward, backward = run.second_moment.samples, run.grad_second_moment.samples
    out["forward x backward"] = forward[:, -1, 0] * backward[:, 0, 0]
    out["backward across inputs"] = backward[:, 0, 0] - backward[:, 0, 1]
    out["dW x forward"] = run.weight_grad_norm.samples[:, 0] * forward[:, 0, 1]
    if run.update_ratio is not None:  # |W| of the second layer beside its products
        out["norm"] = run.weight_grad_norm.samples[:, 1] / run.update_ratio.samples[:, 1]
        out["forward / norm"] = forward[:, 1, 0] / forward[:, 0, 0] / out["norm"] ** 2
        out["backward / norm"] = backward[:, 0, 0] / backward[:, 1, 0] / out["norm"] ** 2
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_implicit_and_materialized_have_one_law(kind: str) -> None:
    """Twins are below; that of the norms of small matrices is norms of other ones."""
    net = network(**KINDS[kind])
    record = [*STATISTICS] if kind.startswith("leaky") else None
    found, drawn = (
        samples(ji.simulate(net, np.arange(SEEDS) + start, correlation=0.3, sampler=sampler, keep_seeds=True,
                            batch=100, record=record))
        for sampler, start in (("implicit", 0), ("materialized", SEEDS))
    )  # fmt: skip
    same_law(found, drawn)
    if record:
        rolled = (found["norm"] / np.roll(found["norm"], 1)) ** 2
        names = ("forward / norm", "backward / norm")
        other_law({name: drawn[name] for name in names}, {name: found[name] * rolled for name in names})


def test_twin_another_weight_variance_is_seen() -> None:
    a = ji.simulate(network(**KINDS["relu"]), SEEDS, keep_seeds=True, batch=100)
    b = ji.simulate(network(activation="relu", weight_variance=2.3), SEEDS, keep_seeds=True, batch=100)
    other_law(samples(a), samples(b))


def test_twin_a_backward_pass_that_forgets_the_projection_is_seen() -> None:
    drawn = ji.simulate(network(**KINDS["relu"]), SEEDS, sampler="materialized", keep_seeds=True, batch=100)
    seeds = np.arange(SEEDS) + SEEDS
    with forgotten_projections():
        found = ji.simulate(network(**KINDS["relu"]), seeds, sampler="implicit", keep_seeds=True, batch=99)
    forward, backward = ([n for n in samples(drawn) if n.startswith(s)] for s in ("second", "grad_second"))
    found, drawn = samples(found), samples(drawn)
    same_law({n: found[n] for n in forward}, {n: drawn[n] for n in forward})
    other_law({n: found[n] for n in backward}, {n: drawn[n] for n in backward})


def test_twin_gaussian_and_orthogonal_differ() -> None:
    a = ji.simulate(network(**KINDS["orthogonal"]), SEEDS, keep_seeds=True, batch=100)
    b = ji.simulate(network(activation="tanh", weight_variance=1.2), SEEDS, keep_seeds=True, batch=100)
    other_law(samples(a), samples(b))


def test_against_a_network_written_out() -> None:
    """The materialized sampler against jax.grad of the plain network, for the same weights."""
    drawn: list[np.ndarray] = []

    def recording(key: jax.Array, shape: tuple[int, ...], dtype: object = jnp.float32) -> jax.Array:
        return jax.random.normal(key, shape, jnp.float32) * jnp.sqrt(jnp.float32(2.0 / shape[0]))

    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    net = ji.Network(3, 8, "gelu", initializer=recording)
    run = ji.simulate(net, [5], x=x, keep_seeds=True, record=[*STATISTICS])

    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 5)
    keys = jax.random.split(key, (4, 4))
    for l in range(3):
        drawn.append(np.asarray(recording(keys[l + 1, 0], (8, 8))))
    r = vector(keys[0, 1], 8) / jnp.sqrt(8.0)

    def forward(weights: list[jax.Array], probes: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        h, zs = jnp.asarray(x), []
        for l, (w, p) in enumerate(zip(weights, probes, strict=True)):
            z = (h if l == 0 else jax.nn.gelu(h, approximate=False)) @ w + p
            zs.append(z)
            h = z
        return jnp.sum(h @ r), zs

    weights = [jnp.asarray(w) for w in drawn]
    probes = [jnp.zeros((3, 8))] * 3
    (dw, dz), zs = jax.grad(forward, argnums=(0, 1), has_aux=True)(weights, probes)
    for l in range(3):
        z, d = np.asarray(zs[l], np.float64), np.asarray(dz[l], np.float64)
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        want = {
            "second_moment": (z**2).mean(1),
            "log_second_moment": np.log((z**2).mean(1)),
            "mean": z.mean(1),
            "kurtosis": ((z - z.mean(1, keepdims=True)) ** 4).mean(1) / z.var(1) ** 2 - 3,
            "correlation": [unit[a] @ unit[b] for a, b in run.pairs],
            "one_minus_correlation": [1 - unit[a] @ unit[b] for a, b in run.pairs],
            "grad_second_moment": (d**2).mean(1),
            "weight_grad_norm": np.linalg.norm(dw[l]),
            "update_ratio": np.linalg.norm(dw[l]) / np.linalg.norm(drawn[l]),
        }
        for name, value in want.items():
            np.testing.assert_allclose(run[name].samples[0, l], value, rtol=2e-4, atol=1e-5, err_msg=name)


def test_dead_zero_and_saturated_units() -> None:
    record = ["zero_fraction", "dead_fraction", "saturated_fraction"]
    run = ji.simulate(
        network(width=64, activation="relu", weight_variance=2.0), 200, correlation=0.0, record=record
    )
    zero, dead = run.zero_fraction, run.dead_fraction
    assert abs(zero.mean[0] - 0.5) < 5 * zero.stderr[0]
    assert abs(dead.mean[0] - 0.25) < 5 * dead.stderr[0]  # both of two independent inputs are negative
    hard = ji.simulate(network(width=64, activation="tanh", weight_variance=1e4), 200, record=record)
    assert hard.saturated_fraction.mean[0] > 0.9 and hard.dead_fraction.mean[0] < 0.9


def test_inputs_have_the_stated_length_and_angle() -> None:
    run = ji.simulate(network(width=64, depth=1, input_width=64, activation="relu", weight_variance=1.0,
                              ensemble="orthogonal"), 3, q=4.0, correlation=-0.4,
                      record=["second_moment", "correlation"])  # fmt: skip
    np.testing.assert_allclose(run.second_moment.mean[0], 4.0, rtol=1e-5)
    np.testing.assert_allclose(run.correlation.mean[0, 0], -0.4, rtol=1e-5)


@pytest.mark.parametrize("variance", [2.0**-5, 0.5, 2.0**9])
def test_depth_10000_neither_overflows_nor_underflows(variance: float) -> None:
    """ReLU networks of one seed differ by exactly log(variance ratio) a layer.

    The ratios are powers of 4, so that every weight is scaled exactly and no unit near 0 changes its sign.
    """
    record = ["log_second_moment", "log_grad_second_moment"]
    net, he = (ji.Network(10_000, 32, "relu", weight_variance=v) for v in (variance, 2.0))
    run, reference = ji.simulate(net, 2, record=record), ji.simulate(he, 2, record=record)
    depth = np.arange(1, 10_001)
    shift = run.log_second_moment.mean[:, 0] - reference.log_second_moment.mean[:, 0]
    np.testing.assert_allclose(shift, depth * np.log(variance / 2), rtol=1e-6, atol=1e-3)
    back = run.log_grad_second_moment.mean[:, 0] - reference.log_grad_second_moment.mean[:, 0]
    np.testing.assert_allclose(back, (10_000 - depth) * np.log(variance / 2), rtol=1e-6, atol=1e-3)
    assert np.isfinite(run.log_second_moment.stderr).all()


def test_a_saturating_network_fades_into_the_linear_range() -> None:
    """tanh(z) = z for tiny z: the signal halves for ever instead of becoming 0."""
    run, linear = (
        ji.simulate(ji.Network(2000, 32, phi, weight_variance=0.5), 4, record=["log_second_moment"])
        for phi in ("tanh", "identity")
    )
    np.testing.assert_allclose(
        np.diff(run.log_second_moment.mean[1000:, 0]),
        np.diff(linear.log_second_moment.mean[1000:, 0]),
        atol=2e-3,
    )


@pytest.mark.parametrize(("variance", "end"), [(0.5, -np.inf), (50.0, np.inf)])
def test_squared_relu_truly_dies_or_explodes(variance: float, end: float) -> None:
    record = ["log_second_moment", "log_grad_second_moment"]
    run = ji.simulate(ji.Network(60, 64, "squared_relu", weight_variance=variance), 2, record=record)
    assert (run.log_second_moment.mean[-1] == end).all() and (run.log_grad_second_moment.mean[0] == end).all()
    assert (
        np.isfinite(run.log_second_moment.mean[0]).all()
        and np.isfinite(run.log_grad_second_moment.mean[-1]).all()
    )


def test_an_input_that_explodes_spoils_no_other() -> None:
    x = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    net = ji.Network(5, 64, "squared_relu", weight_variance=0.2)
    alone, both = (
        ji.simulate(net, 4, x=inputs, keep_seeds=True, record=["second_moment", "mean", "grad_second_moment"])
        for inputs in (x[:1], np.stack([x[0], 1e6 * x[1]]))
    )
    assert (both.second_moment.mean[-1] == np.inf).tolist() == [False, True]
    assert np.isnan(both.mean.mean[-1, 1]) and np.isfinite(both.mean.mean[:, 0]).all()
    # The first row of a draw does not depend on the rows after it.
    np.testing.assert_allclose(
        both.second_moment.samples[:, :, 0], alone.second_moment.samples[:, :, 0], rtol=1e-3
    )


def test_all_zero_weights() -> None:
    run = ji.simulate(ji.Network(3, 16, "relu", initializer=ji.zeros()), 2)
    assert (run.second_moment.mean == 0).all() and (run.log_second_moment.mean == -np.inf).all()
    assert np.isnan(run.correlation.mean).all() and (run.correlation.defined == 0).all()
    assert (run.grad_second_moment.mean[:-1] == 0).all() and run.grad_second_moment.mean[-1, 0] > 0


def test_same_seed_same_network_whatever_the_split() -> None:
    net = network(**KINDS["tanh with bias"])
    record = ["second_moment", "grad_second_moment"]
    whole = ji.simulate(net, 12, keep_seeds=True, batch=4, record=record)
    for kwargs in ({"chunk": 4, "batch": 4}, {"chunk": 5, "batch": 2}, {"batch": 1}):
        split = ji.simulate(net, 12, keep_seeds=True, record=record, **kwargs)
        np.testing.assert_allclose(split.second_moment.samples, whole.second_moment.samples, rtol=2e-5)
        np.testing.assert_allclose(split.grad_second_moment.mean, whole.grad_second_moment.mean, rtol=2e-5)
    some = ji.simulate(net, [3, 7], keep_seeds=True, batch=1, record=record)
    np.testing.assert_allclose(some.second_moment.samples, whole.second_moment.samples[[3, 7]], rtol=2e-5)
    other = ji.simulate(net, 12, keep_seeds=True, root=1, batch=4, record=record)
    assert not np.allclose(other.second_moment.samples, whole.second_moment.samples, rtol=1e-2)


def test_normals_that_are_drawn_twice_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network too large to keep its normals for the backward pass."""
    net = ji.Network(3, 16, "tanh", weight_variance=1.5, bias_variance=0.1)
    names = ["grad_second_moment", "grad_correlation", "weight_grad_norm"]
    kept = ji.simulate(net, 6, record=names)
    monkeypatch.setattr(_simulate, "_STORE_BYTES", 100)
    assert not _simulate._weights(net, (16, 16), "auto", False, 2).store
    drawn = ji.simulate(net, 6, record=names)
    for name in names:
        np.testing.assert_allclose(drawn[name].mean, kept[name].mean, rtol=1e-5)


def test_numbers_do_not_recompile() -> None:
    ji.simulate(network(activation="silu", weight_variance=1.0), 4)
    before = chunks()
    for variance in (1.5, 2.5):
        ji.simulate(network(activation="silu", weight_variance=variance), 4, q=variance, correlation=0.1)
    ji.simulate(network(activation="silu", weight_variance=3.0), [9, 8, 7, 6])
    assert chunks() == before > 0


def test_samplers_are_chosen_and_named() -> None:
    def config(init: object, **kwargs: object) -> dict:
        net = ji.Network(2, 64, "relu", initializer=init)
        return ji.simulate(net, 2, record=["second_moment"], **kwargs).config  # type: ignore[arg-type]

    assert config(ji.he_normal(distribution="normal"))["sampler"] == "implicit (gaussian)"
    assert config(ji.he_normal())["sampler"] == "materialized (iid)"
    approximate = config(ji.he_normal(), approximate=True)
    assert approximate["sampler"] == "implicit (gaussian)" and approximate["approximate"] is True
    assert config(ji.orthogonal())["sampler"] == "implicit (orthogonal)"
    assert (
        config(lambda key, shape, dtype: jax.random.normal(key, shape))["sampler"] == "materialized (unknown)"
    )


def test_an_initializer_of_normal_law_is_its_weight_variance() -> None:
    record = ["second_moment"]
    init = ji.he_normal(distribution="normal")
    by_name = ji.simulate(ji.Network(3, 64, "relu", initializer=init), 4, record=record)
    by_number = ji.simulate(ji.Network(3, 64, "relu", weight_variance=2.0), 4, record=record)
    np.testing.assert_allclose(by_name.second_moment.mean, by_number.second_moment.mean, rtol=1e-5)


def test_lowers_for_accelerators() -> None:
    from jaxinit.ensemble import _compiled

    for kwargs in (KINDS["tanh with bias"], KINDS["orthogonal"]):
        net = network(**kwargs)
        weights = tuple(_simulate._weights(net, s, "implicit", False, 2) for s in net.shapes)
        program = _simulate._program(net, weights, _simulate._wanted([*STATISTICS], True, 2))
        data = (net, _simulate._inputs(net, 1.0, 0.5, None))
        traced = _compiled.jitted(_compiled.chunk, "cpu").trace(
            jnp.arange(4, dtype=jnp.uint32), jnp.uint32(0), data, program, 2, True
        )
        assert traced.lower(lowering_platforms=("cuda", "tpu"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"seeds": 0}, ValueError, r"simulate\(seeds=...\)"),
        ({"seeds": []}, ValueError, "not empty"),
        ({"seeds": [1, 1]}, ValueError, "distinct"),
        ({"q": -1.0}, ValueError, r"q=...\)` must be a finite number at least 0"),
        ({"correlation": 1.5}, ValueError, "at most 1"),
        ({"x": np.ones((2, 5))}, ValueError, "input_width = 8"),
        ({"x": np.ones(8)}, ValueError, r"Pass x\[None\]"),
        ({"x": [[1.0], [1.0, 2.0]]}, TypeError, "an array of real numbers"),
        ({"x": np.full((2, 8), np.nan)}, ValueError, "finite"),
        ({"backward": "no"}, TypeError, r"backward=...\)` must be True or False"),
        ({"progress": "bar"}, TypeError, r"a function of \(done, total\)"),
        (
            {"network": ji.Network(2, 8, "relu", initializer=lambda key, shape, dtype: jnp.ones((2, 2)))},
            ValueError,
            r"shape it is asked for, \(8, 8\)",
        ),
        (
            {"network": ji.Network(2, 8, "relu", initializer=jnp.ones), "sampler": "implicit"},
            ValueError,
            "whose law is known",
        ),
        ({"x": np.full((2, 8), "a")}, TypeError, "real numbers"),
        ({"sampler": "implict"}, ValueError, "Did you mean 'implicit'"),
        ({"record": ["second_momnt"]}, ValueError, "Did you mean 'second_moment'"),
        ({"record": "mean"}, TypeError, r"sequence of names.*Pass \['mean'\]"),
        ({"record": []}, ValueError, "at least one"),
        ({"record": 5}, TypeError, r"a sequence of names of statistics, got 5"),
        ({"record": np.array("mean")}, TypeError, "a sequence of names of statistics"),
        ({"q": 1e300}, ValueError, r"q=...\)` must be 0, or from 1e-62 to .*float32 holds.*dtype='float64'"),
        ({"q": 1e-300}, ValueError, "must be 0, or from 1e-62"),
        ({"x": np.full((2, 8), 1e300)}, ValueError, "within the range of float32"),
        ({"dtype": jnp.ones(3)}, TypeError, r"a dtype, its name, or None, got Array.*Pass its .dtype"),
        ({"root": 2**32}, ValueError, r"root=...\)` must be an integer of at most 4294967295"),
        ({"record": ["correlation"], "x": np.ones((1, 8))}, ValueError, "x has one row"),
        ({"record": ["grad_correlation"], "backward": False}, ValueError, "backward=False"),
        ({"batch": 0}, ValueError, "at least 1"),
        ({"network": "relu"}, TypeError, "a jaxinit.Network"),
        (
            {"network": ji.Network(2, 8, "relu", initializer="he"), "sampler": "implicit"},
            ValueError,
            "approximate=True",
        ),
        ({"network": ji.Network(2, 1, "relu", weight_variance=2.0)}, ValueError, "input_width of at least 2"),
    ],
)
def test_bad_input(change: dict, error: type, words: str) -> None:
    kwargs = {"network": network(activation="relu", weight_variance=2.0), "seeds": 2, **change}
    with pytest.raises(error, match=words):
        ji.simulate(kwargs.pop("network"), kwargs.pop("seeds"), **kwargs)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"depth": 0}, ValueError, r"Network\(depth=...\)` must be an integer of at least 1, got 0"),
        ({"width": 0}, ValueError, "width"),
        ({"width": [8, 8]}, ValueError, "depth = 3 integers"),
        ({"width": np.array("x")}, TypeError, r"Network\(width=...\)` must be an integer.*'x' of type str"),
        ({"width": b"abc"}, TypeError, r"Network\(width=...\)` must be an integer"),
        ({"width": 10**12}, ValueError, "at most 2147483647"),
        ({"depth": 10**400}, ValueError, r"Network\(depth=...\)` must be an integer of at most 16777216"),
        ({"weight_variance": -1.0}, ValueError, "weight_variance"),
        ({"weight_variance": float("nan")}, ValueError, "finite"),
        ({"bias_variance": -1.0}, ValueError, "bias_variance"),
        ({"activation": "rellu"}, ValueError, "relu"),
        ({"weight_variance": None}, ValueError, "needs the law of its weights"),
        ({"initializer": "he"}, ValueError, r"left out when initializer=he_normal\(\) is given, got 2.0"),
        ({"initializer": "hee"}, ValueError, "Did you mean 'he'"),
        ({"weight_variance": None, "initializer": "hee"}, ValueError, "'he'"),
        ({"ensemble": "haar"}, ValueError, "'gaussian' or 'orthogonal'"),
        (
            {"weight_variance": None, "initializer": "he", "ensemble": "orthogonal"},
            ValueError,
            "ji.orthogonal",
        ),
        ({"input_width": 0}, ValueError, "input_width"),
    ],
)
def test_bad_network(change: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        network(**{"activation": "relu", "weight_variance": 2.0, **change})
