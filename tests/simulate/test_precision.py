"""simulate(dtype=...): rounding against NumPy's casts, against a Flax model, by law between samplers; ranges."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from laws import other_law, same_law

import jaxinit as ji
from jaxinit._core.normals import vector
from jaxinit.simulate._precision import Precision

RECORD = ["second_moment", "one_minus_correlation", "grad_second_moment", "weight_grad_norm"]
TYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def numbers() -> np.ndarray:
    """Of every size in and around the ranges, with ties between neighbours among them."""
    rng = np.random.default_rng(0)
    some = rng.normal(size=(280, 200)) * 2.0 ** np.arange(-140, 140)[:, None]
    ties = np.ldexp(1 + rng.integers(0, 512, (30, 200)) / 256, np.arange(-28, 2)[:, None])
    some = np.clip(some, -(2.0**127), 2.0**127)
    return np.concatenate([some, ties, [[65519.0, 65520.0] * 100]]).astype(np.float32)


@pytest.mark.parametrize("dtype", TYPES)
def test_rounds_as_a_cast_does(dtype: str) -> None:
    x = numbers()
    with np.errstate(over="ignore"):
        want = x.astype(TYPES[dtype]).astype(np.float32)
    found = np.asarray(Precision(dtype).entries(jnp.asarray(x)))
    faint = (np.abs(x) < 2.0**-126) & (dtype == "bfloat16")  # subnormal, as the machine has it
    np.testing.assert_array_equal(found[~faint], want[~faint])
    assert (np.abs(found[faint]) <= 2.0**-126).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_are_rounded_at_their_own_scale(dtype: str) -> None:
    x = np.random.default_rng(1).uniform(0.5, 1, size=(400, 3)).astype(np.float32)
    exponent = np.arange(-200, 200)
    found, shift = Precision(dtype).rows(jnp.asarray(x), jnp.asarray(exponent))
    with np.errstate(over="ignore"):
        true = np.ldexp(np.float64(x), exponent[:, None]).astype(TYPES[dtype])
    true[np.abs(true).astype(np.float64) < 2.0**-126] = 0  # as pow2 has it
    lost = ~np.isfinite(true.astype(np.float64)).all(1)
    assert ((np.asarray(shift) > 2**20) == lost).all()
    np.testing.assert_array_equal(
        np.ldexp(np.float64(found)[~lost], np.asarray(shift)[~lost, None]), np.float64(true[~lost])
    )


def test_is_what_a_flax_model_of_the_dtype_computes() -> None:
    """Operation by operation, except that phi' is one factor. The network of float32, a twin, is far from it."""
    dtype = "bfloat16"

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: object = jnp.float32) -> jax.Array:
        return jax.random.normal(key, shape, jnp.float32) * jnp.sqrt(jnp.float32(2.0 / shape[0]))

    class Model(nn.Module):
        @nn.compact
        def __call__(self, h: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
            zs: list[jax.Array] = []
            for l in range(3):
                h = nn.Dense(64, use_bias=False, dtype=dtype, name=f"layer{l}")(
                    jax.nn.gelu(h, approximate=False) if l else h
                )
                h = self.perturb(f"z{l}", h)
                zs.append(h)
            return h, zs

    net = ji.Network(3, 64, "gelu", initializer=draw)
    x = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    run, single = (ji.simulate(net, [5], x=x, keep_seeds=True, record=RECORD, dtype=d) for d in (dtype, None))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 5), (4, 4))
    params = {f"layer{l}": {"kernel": draw(keys[l + 1, 0], (64, 64))} for l in range(3)}
    r = (vector(keys[0, 1], 64) / jnp.sqrt(64.0)).astype(dtype)
    model, probes = Model(), {f"z{l}": jnp.zeros((2, 64), dtype) for l in range(3)}

    def loss(params: dict, probes: dict) -> tuple[jax.Array, list[jax.Array]]:
        f, zs = model.apply({"params": params, "perturbations": probes}, x)
        return jnp.sum(f * r[None]), zs

    # Not compiled: in one kernel XLA keeps more digits than the program asks for.
    (dw, dz), zs = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, probes)
    for l in range(3):
        z, d = (np.asarray(v, np.float64) for v in (zs[l], dz[f"z{l}"]))
        found = run.second_moment.samples[0, l]
        np.testing.assert_allclose(found, (z**2).mean(1), rtol=1e-6)
        assert np.abs(single.second_moment.samples[0, l] / found - 1).max() > 1e-4
        np.testing.assert_allclose(run.grad_second_moment.samples[0, l], (d**2).mean(1), rtol=1e-2)
        norm = np.linalg.norm(np.asarray(dw[f"layer{l}"]["kernel"], np.float64))
        np.testing.assert_allclose(run.weight_grad_norm.samples[0, l], norm, rtol=1e-2)


def network(**changes: object) -> ji.Network:
    given = {"depth": 3, "width": 12, "activation": "tanh", "weight_variance": 1.5, "bias_variance": 0.1}
    return ji.Network(**{**given, **changes})  # type: ignore[arg-type]


def samples(net: ji.Network, dtype: str | None, sampler: str, root: int) -> dict[str, np.ndarray]:
    """Of inputs so near that it is rounding what parts them."""
    run = ji.simulate(net, 3000, correlation=1 - 1e-5, sampler=sampler, record=RECORD, keep_seeds=True,
                      root=root, batch=100, dtype=dtype)  # fmt: skip
    out = {f"{name} {site}": run[name].samples[:, site, ...] for name in RECORD for site in (0, -1)}
    forward, backward = run.second_moment.samples, run.grad_second_moment.samples
    out["forward x backward"] = forward[:, -1, 0] * backward[:, 0, 0]
    out["backward across inputs"] = backward[:, 0, 0] - backward[:, 0, 1]
    return out


def test_never_formed_has_the_law_of_drawn() -> None:
    drawn = samples(network(), "bfloat16", "materialized", 0)
    same_law(drawn, samples(network(), "bfloat16", "implicit", 1))
    other_law(drawn, samples(network(), "float16", "implicit", 2))  # the twin: of more digits


def test_float16_loses_what_is_small_or_large() -> None:
    """A linear orthogonal network of one entry's scale 2^-l: entries vanish below 2^-25, rows beyond 65504."""
    for variance, end in ((0.25, -np.inf), (4.0, np.inf)):
        grid = {
            "depth": 40, "width": 16, "activation": "identity", "weight_variance": variance,
            "ensemble": "orthogonal", "dtype": ["float16", "bfloat16"],
        }  # fmt: skip
        found = ji.sweep(grid, 2, record=["log_second_moment", "log_grad_second_moment"])
        (half, brain), back = found["log_second_moment"].mean, found["log_grad_second_moment"].mean[0]
        assert (half[-1] == end).all() and np.isfinite(half[10]).all()
        layers = np.arange(1, 41)[:, None] * np.log(variance)
        np.testing.assert_allclose(brain, np.broadcast_to(layers, brain.shape), atol=0.05)
        np.testing.assert_allclose(half[:10], np.broadcast_to(layers[:10], half[:10].shape), atol=0.02)
        assert (back[0] == end).all()


def test_float32_is_the_default_within_its_range() -> None:
    faint = ji.Network(150, 16, "identity", weight_variance=0.25, ensemble="orthogonal")
    default, single = (
        ji.simulate(faint, 1, dtype=d, record=["log_second_moment"]) for d in (None, "float32")
    )
    logs = single.log_second_moment.mean
    np.testing.assert_allclose(logs[:120], default.log_second_moment.mean[:120], rtol=1e-6)
    assert (logs[130] == -np.inf).all() and np.isfinite(default.log_second_moment.mean).all()
    assert single.config["dtype"] == "float32" and default.config["dtype"] is None


def test_float64_is_the_same_network_in_more_digits() -> None:
    single = ji.simulate(network(), 3, record=RECORD, sampler="implicit")
    with jax.enable_x64(True):
        double = ji.simulate(network(), 3, record=RECORD, sampler="implicit", dtype="float64")
    for name in RECORD:
        difference = np.abs(double[name].mean - single[name].mean)
        assert 0 < difference.max() < 1e-4 * np.abs(single[name].mean).max(), name
    with jax.enable_x64(True):
        net = ji.Network(600, 8, "identity", weight_variance=0.25, ensemble="orthogonal")
        log = ji.simulate(net, 1, record=["log_second_moment"], dtype=jnp.float64).log_second_moment.mean
    np.testing.assert_allclose(log[:, 0], np.arange(1, 601) * np.log(0.25), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"dtype": "float8"}, ValueError, "'bfloat16', 'float16'"),
        ({"dtype": "bfloat"}, ValueError, "bfloat16"),
        ({"dtype": np.int32}, ValueError, "int32"),
        ({"dtype": 3}, TypeError, "its name, or None"),
        ({"dtype": "float64"}, ValueError, "jax_enable_x64"),
        ({"dtype": "float32", "jacobian": True}, ValueError, "jacobian="),
    ],
)
def test_bad_dtype(changes: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        ji.simulate(network(), 2, **changes)


def test_rounded_orthogonal_weights_are_drawn() -> None:
    net = network(width=64, ensemble="orthogonal")
    assert (
        ji.simulate(net, 1, dtype="bfloat16", record=["mean"]).config["sampler"]
        == "materialized (orthogonal)"
    )
    with pytest.raises(ValueError, match="materialized"):
        ji.simulate(net, 1, dtype="bfloat16", sampler="implicit")
