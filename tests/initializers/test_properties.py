"""Ten properties by which these initializers are meant to be better than their peers."""

import functools
import json
import math
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from initializers.schemes import ALL, MATRICES

import jaxinit.initializers as ji

pytestmark = pytest.mark.optimized  # bits are promised


KEY = jax.random.key(11)


def ids(inits):
    return [repr(i) for i in inits]


def within(estimate, truth, stderr, bias=0.0):
    return abs(estimate - truth) <= 5 * stderr + bias


# 1. One rounding, no bias


@pytest.mark.parametrize("init", ALL, ids=ids(ALL))
def test_low_precision_is_the_float32_draw_rounded_once(init):
    full = np.asarray(init(KEY, (16, 8), jnp.float32))
    for dtype in (jnp.bfloat16,) if init in MATRICES else (jnp.bfloat16, jnp.float16):
        assert np.array_equal(np.asarray(init(KEY, (16, 8), dtype)), full.astype(dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=["f32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "init", [ji.he_normal(), ji.lecun_uniform(), ji.glorot_normal(distribution="normal")], ids=repr
)
def test_draws_have_no_bias_and_no_grid(init, dtype):
    n = 2**22
    w = np.asarray(init(KEY, (2048, n // 2048), dtype)).astype(np.float64)
    assert abs(w.mean()) / w.std() < 5 / math.sqrt(n) + 2**-12
    distinct = np.unique(w.ravel()[:10_000]).size
    assert distinct > {"float32": 9000, "bfloat16": 1000, "float16": 3000}[jnp.dtype(dtype).name]


def test_the_bias_test_sees_a_biased_draw():
    w = np.asarray(jax.nn.initializers.lecun_normal()(KEY, (2048, 2048), jnp.bfloat16)).astype(np.float64)
    assert abs(w.mean()) / w.std() > 5 / math.sqrt(w.size) + 2**-12
    assert np.unique(w.ravel()[:10_000]).size < 1000


def _depth_signal(init, dtype, layers, width):
    @jax.jit
    def run():
        def layer(h, key):
            z = h @ init(key, (width, width), dtype).astype(jnp.float32)
            return jax.nn.relu(z), jnp.mean(z * z)

        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.arange(layers))
        return jax.lax.scan(layer, jax.random.normal(jax.random.key(9), (64, width)), keys)[1][-1]

    return float(run())


@pytest.mark.slow
def test_twenty_bfloat16_layers_keep_the_signal():
    full = _depth_signal(ji.he_normal(), jnp.float32, 20, 1024)
    half = _depth_signal(ji.he_normal(), jnp.bfloat16, 20, 1024)
    assert abs(half / full - 1) < 0.05


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2], ids=["e4m3", "e5m2"])
@pytest.mark.parametrize("init", [ji.he_normal(), ji.lecun_uniform(), ji.orthogonal()], ids=repr)
def test_float8_is_finite_and_right_or_refused(init, dtype):
    full = np.asarray(init(KEY, (256, 256), jnp.float32))
    w = np.asarray(init(KEY, (256, 256), dtype)).astype(np.float32)
    assert np.array_equal(w, full.astype(dtype).astype(np.float32))
    assert np.isfinite(w).all() and (w != 0).mean() > 0.5
    assert abs(w.std() / full.std() - 1) < 0.05
    with pytest.raises(ValueError, match="float8"):
        ji.normal(1e-6)(KEY, (8, 8), dtype)


# 2. Exact second moments


@pytest.mark.parametrize(
    ("init", "dtype", "words"),
    [
        (ji.normal(1e5), jnp.float16, "able to hold entries"),
        (ji.normal(1e300), jnp.float32, "able to hold entries"),
        (ji.hadamard(1e300), jnp.float32, "within the range of float32"),
        (ji.constant(1j), jnp.float32, "complex, to hold 1j"),
        (ji.zeros(), [], "a dtype such as"),
        (ji.he_normal(), np.zeros(3), "a dtype such as"),
        (ji.scaled(lambda key, shape, dtype: 3.0, 2.0), jnp.float32, r"returned \(\)"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_numbers_and_dtypes_that_do_not_go_together(init, dtype, words):
    with pytest.raises((ValueError, TypeError), match=words):
        init(jax.random.key(0), (4, 4), dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64], ids=["real", "complex"])
@pytest.mark.parametrize("distribution", ["truncated_normal", "normal", "uniform"])
def test_second_moments_are_exact(distribution, dtype):
    n = 2_000_000
    w = np.asarray(ji.variance_scaling(1.7, "fan_in", distribution)(KEY, (1000, n // 1000), dtype))
    squares = np.abs(w.astype(np.complex128)) ** 2 * 1000 / 1.7
    assert within(squares.mean(), 1.0, squares.std() / math.sqrt(n))


def test_the_moment_test_sees_jax_complex_constant():
    w = np.asarray(jax.nn.initializers.lecun_normal()(KEY, (1000, 2000), jnp.complex64))
    squares = np.abs(w.astype(np.complex128)) ** 2 * 1000
    assert not within(squares.mean(), 1.0, squares.std() / math.sqrt(w.size))


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (-0.5, 3.0), (0.5, 1.0), (2.0, 9.0), (-7.0, -3.0)])
def test_truncated_moments_follow_the_bounds(bounds):
    scipy_stats = pytest.importorskip("scipy.stats")
    from jaxinit.initializers._draw import truncated_moments

    exact = scipy_stats.truncnorm(*bounds)
    mean, stddev = truncated_moments(*bounds)
    assert mean == pytest.approx(exact.mean(), rel=1e-9, abs=1e-12)
    assert stddev == pytest.approx(exact.std(), rel=1e-7)
    n = 2_000_000
    w = np.asarray(ji.truncated_normal(0.3, *bounds, mean=0.1, corrected=True)(KEY, (n,))).astype(np.float64)
    assert within(w.mean(), 0.1, w.std() / math.sqrt(n), 1e-7)
    squares = (w - 0.1) ** 2
    assert within(squares.mean(), 0.09, squares.std() / math.sqrt(n), 1e-6)


def test_truncation_constants():
    from jaxinit.initializers import _draw

    assert pytest.approx(_draw.TRUNCATED_STDDEV, rel=1e-15) == _draw.truncated_moments(-2, 2)[1]
    assert pytest.approx(0.9619618280082136, rel=1e-14) == _draw.COMPLEX_TRUNCATED_STDDEV


# 3. Fans from meaning


def _ratio(layer, x):
    y = layer.apply(layer.init(jax.random.key(0), x), x)
    return float(jnp.mean(y * y) / jnp.mean(x * x))


def _x(*shape):
    return jax.random.normal(jax.random.key(5), shape)


LAYERS = {
    "dense_general_batch": lambda: _ratio(
        nn.DenseGeneral(
            128, axis=-1, batch_dims=(0,), kernel_init=ji.for_dense_general(ji.lecun_normal(), 16)
        ),
        _x(16, 64, 128),
    ),
    "conv_local": lambda: _ratio(
        nn.ConvLocal(64, (3, 3), padding="VALID", kernel_init=ji.for_conv_local(ji.lecun_normal())),
        _x(64, 8, 8, 16),
    ),
    "einsum": lambda: _ratio(
        nn.Einsum((256, 4, 64), "bc,cde->bde", False, kernel_init=ji.lecun_normal(einsum="bc,cde->bde")),
        _x(512, 256),
    ),
    "experts": lambda: _ratio(
        nn.Einsum((8, 64, 64), "ebc,ecd->ebd", False, kernel_init=ji.for_stack(ji.lecun_normal())),
        _x(8, 256, 64),
    ),
    "experts_einsum": lambda: _ratio(
        nn.Einsum(
            (8, 64, 64), "ebc,ecd->ebd", False, kernel_init=ji.for_einsum(ji.lecun_normal(), "ebc,ecd->ebd")
        ),
        _x(8, 256, 64),
    ),
    "conv_transpose": lambda: _ratio(
        nn.ConvTranspose(
            64,
            (4, 4),
            (2, 2),
            padding="CIRCULAR",
            kernel_init=ji.for_conv_transpose(ji.lecun_normal(), 2),
        ),
        _x(16, 12, 12, 64),
    ),
    "conv_transpose_swapped": lambda: _ratio(
        nn.ConvTranspose(
            64,
            (4, 4),
            (2, 2),
            padding="CIRCULAR",
            transpose_kernel=True,
            kernel_init=ji.for_conv_transpose(ji.lecun_normal(), 2, transpose_kernel=True),
        ),
        _x(16, 12, 12, 32),
    ),
    "depthwise_glorot": lambda: _ratio(
        nn.Conv(
            8192,
            (3, 3),
            feature_group_count=8192,
            padding="CIRCULAR",
            kernel_init=ji.for_depthwise(ji.glorot_normal(), 8192),
        ),
        _x(1, 4, 4, 8192),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_output_variance_is_input_variance(name):
    # depthwise: 73,728 weights and 131,072 inputs, so that the standard error is below 1 %
    assert abs(LAYERS[name]() - 1) < 0.03


def test_stacked_kernels():
    w = ji.for_stack(ji.lecun_normal())(KEY, (12, 256, 256))
    assert abs(float(jnp.std(w)) * 16 - 1) < 0.01
    q = ji.orthogonal(batch_axis=0)(KEY, (3, 16, 16))
    assert np.allclose(jnp.einsum("bij,bkj->bik", q, q), np.eye(16), atol=2e-6)


def test_fans_of_peers():
    assert ji.fans((3, 5)) == (3, 5)
    assert ji.fans((2, 3, 4, 5)) == (24, 30)
    assert ji.fans((2, 3, 4, 5), in_axis=(0, 1), out_axis=(2, 3)) == (6, 20)
    assert ji.fans((7, 3, 5), batch_axis=0) == (3, 5)
    assert ji.fans((np.int64(4), 4, np.int64(6), 8), stride=(2, 2)) == (24, 128)
    assert ji.fans((100, 16), out_axis=0) == (16, 100)  # an embedding
    assert ji.fans((4, 8, 32), einsum="...hd,hde->...e") == (32, 32)
    assert ji.fans((0, 5)) == (0, 5)


# 4. Value semantics


@pytest.mark.parametrize("init", ALL, ids=ids(ALL))
def test_values(init):
    config = json.loads(json.dumps(init.to_config()))
    leaves, tree = jax.tree.flatten(init)
    for again in (
        eval(repr(init), {**vars(ji), "np": np}),
        pickle.loads(pickle.dumps(init)),
        ji.from_config(config),
        jax.tree.unflatten(tree, leaves),
    ):
        assert again == init and hash(again) == hash(init) and repr(again) == repr(init)
    assert init != ji.normal(0.12345)


def test_all_differ():
    assert len(set(ALL)) == len(ALL)


def test_array_constants_compare_and_round_trip():
    init = ji.constant(np.arange(3.0, dtype=np.float32))
    assert init == eval(repr(init), {**vars(ji), "np": np}) == ji.from_config(init.to_config())
    assert np.array_equal(init(None, (2, 3)), [[0, 1, 2], [0, 1, 2]])


def test_equal_modules_share_one_trace():
    traces = []

    def run(module, x):
        traces.append(1)
        return module.init(jax.random.key(0), x)

    jitted = jax.jit(run, static_argnums=0)
    for _ in range(3):
        jitted(nn.Dense(3, kernel_init=ji.he_normal(), bias_init=ji.zeros()), jnp.ones((1, 2)))
    assert len(traces) == 1


def test_numbers_sweep_without_retracing():
    traces = []

    @jax.jit
    def draw(init):
        traces.append(1)
        return init(KEY, (64, 64))

    spreads = [float(jnp.std(draw(ji.normal(s)))) for s in (0.1, 0.2, 0.4)]
    assert len(traces) == 1 and spreads[2] == pytest.approx(4 * spreads[0], rel=1e-6)
    swept = jax.vmap(lambda s: ji.variance_scaling(s)(KEY, (8, 8)))(jnp.array([1.0, 4.0]))
    assert np.allclose(swept[1], 2 * swept[0], rtol=1e-6)


# 5. Fail at construction

BAD = {
    "mode": lambda: ji.variance_scaling(1.0, "fanin"),
    "distribution": lambda: ji.he_normal(distribution="norml"),
    "keras_name": lambda: ji.variance_scaling(1.0, "fan_in", "untruncated_normal"),
    "scale_zero": lambda: ji.variance_scaling(0.0),
    "scale_negative": lambda: ji.variance_scaling(-1.0),
    "scale_nan": lambda: ji.orthogonal(float("nan")),
    "same_axis": lambda: ji.he_normal(in_axis=-1),
    "batch_is_in": lambda: ji.he_normal(batch_axis=-2),
    "axis_twice": lambda: ji.he_normal(in_axis=(0, 0)),
    "einsum": lambda: ji.he_normal(einsum="bc->cd"),
    "einsum_and_axes": lambda: ji.he_normal(einsum="bc,cd->bd", in_axis=0),
    "groups": lambda: ji.he_normal(groups=0),
    "fan": lambda: ji.he_normal(fan=-3),
    "activation": lambda: ji.he_normal("rellu"),
    "slope": lambda: ji.he_normal("tanh", negative_slope=0.1),
    "bounds": lambda: ji.truncated_normal(1.0, 2.0, -2.0),
    "uniform": lambda: ji.uniform(0.05),
    "stddev": lambda: ji.normal(-1.0),
    "preserve": lambda: ji.orthogonal(preserve="norms"),
    "rule": lambda: ji.residual(ji.he_normal(), 3, "gpt"),
    "option": lambda: ji.residual(ji.he_normal(), 3, "gpt2", last=True),
    "layer": lambda: ji.residual(ji.he_normal(), 3, "layerwise"),
    "depth": lambda: ji.residual(ji.he_normal(), 0),
    "depth_wang": lambda: ji.wang(10**400),
    "depth_deepnorm": lambda: ji.deepnorm(1, "encoder", 10**400),
    "depth_admin": lambda: ji.admin_skip(10**400),
    "init": lambda: ji.scaled("hee_normal", 0.5),
    "sparsity": lambda: ji.sparse(sparsity=1.0),
    "name": lambda: ji.get("kaimin"),
    "config": lambda: ji.from_config({"name": "he_normal", "made": 1}),
    "shape_1d": lambda: ji.he_normal()(KEY, (5,)),
    "shape_axis": lambda: ji.he_normal(in_axis=3)(KEY, (5, 4)),
    "shape_negative": lambda: ji.normal()(KEY, (-1,)),
    "uncalled": lambda: ji.get(ji.he_normal),
    "uncalled_jax": lambda: ji.get(jax.nn.initializers.he_normal),
    "class": lambda: ji.get(ji.Initializer),
    "keys": lambda: ji.normal()(jax.random.split(KEY, 2), (3,)),
    "groups_divide": lambda: ji.he_normal(groups=3)(KEY, (1, 4)),
    "split": lambda: ji.split(ji.he_normal(), 0, (3, -1))(KEY, (4, 4)),
}
WRONG_TYPE = {
    "integer": lambda: ji.he_normal()(KEY, (5, 4), jnp.int32),
    "key": lambda: ji.he_normal()(0, (5, 4)),
    "factory": lambda: ji.he_normal(KEY),
    "factory_normal": lambda: ji.normal(KEY),
    "scale": lambda: ji.orthogonal("2"),
    "axis": lambda: ji.he_normal(in_axis="in"),
    "get": lambda: ji.get(object()),
    "shape": lambda: ji.normal()(KEY, 3),
    "first": lambda: ji.siren(first="no"),
    "multiplier": lambda: ji.mup(ji.normal(), (2, 2), multiplier=1),
    "transposed": lambda: ji.for_conv_transpose(ji.he_normal(), 2, transpose_kernel="yes"),
    "fans_of_normal": lambda: ji.for_stack(ji.normal()),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused_with_a_way_out(name):
    with pytest.raises(ValueError, match=r"^`\w+\(\w+=\.\.\.\)` must be .*, got .*"):
        BAD[name]()


@pytest.mark.parametrize("name", WRONG_TYPE)
def test_wrong_types_are_refused(name):
    with pytest.raises(TypeError, match=r"must be .*, got .*"):
        WRONG_TYPE[name]()


def test_flax_embed_default_and_lists_and_numpy_axes():
    ours = ji.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
    table = nn.Embed(1000, 64, embedding_init=ours).init(KEY, jnp.array([0]))["params"]["embedding"]
    assert abs(float(jnp.std(table)) * 8 - 1) < 0.02
    assert ji.he_normal(in_axis=np.int64(0), out_axis=np.int64(1))(KEY, [np.int64(3), 4]).shape == (3, 4)


# 6. Total over shapes


@pytest.mark.parametrize("init", ALL, ids=ids(ALL))
def test_empty_shapes(init):
    for shape in ((0, 5), (5, 0), (3, 3, 0, 4), (0,)):
        assert init(KEY, shape, jnp.bfloat16).shape == shape
        assert jax.eval_shape(lambda k, shape=shape: init(k, shape), KEY).shape == shape


@pytest.mark.parametrize("shape", [(), (7,)], ids=str)
def test_fan_given_for_short_shapes(shape):
    assert ji.he_uniform(fan=64)(KEY, shape).shape == shape


GRAM = [
    (jnp.float32, 2e-6),
    (jnp.complex64, 2e-6),
    (jnp.bfloat16, 2**-8),
    (jnp.float16, 2**-11),
]


def _gram_error(w):
    w = w.astype(np.complex128).reshape(-1, w.shape[-1])
    gram = w @ w.conj().T if w.shape[0] <= w.shape[1] else w.conj().T @ w
    return np.abs(gram - np.eye(len(gram))).max()


@pytest.mark.parametrize(("dtype", "limit"), GRAM, ids=["f32", "c64", "bf16", "fp16"])
@pytest.mark.parametrize("shape", [(64, 64), (16, 96), (96, 16), (3, 3, 4, 48), (2, 4, 48)], ids=str)
def test_orthogonal_grams(shape, dtype, limit):
    assert _gram_error(np.asarray(ji.orthogonal()(KEY, shape, dtype))) < limit


def test_orthogonal_float64():
    with jax.enable_x64(True):
        w = np.asarray(ji.orthogonal()(KEY, (64, 64), jnp.float64))
    assert w.dtype == np.float64 and _gram_error(w) < 1e-13


@pytest.mark.slow
def test_orthogonal_grams_at_width_1024():
    for dtype, limit in (*GRAM, (jnp.float64, 1e-13)):
        with jax.enable_x64(dtype == jnp.float64):
            w = np.asarray(ji.orthogonal()(KEY, (1024, 1024), dtype))
        assert w.dtype == dtype and _gram_error(w) < limit, dtype


@pytest.mark.parametrize("shape", [(3, 8, 12), (4, 3, 12, 8), (3, 3, 3, 6, 6)], ids=str)
def test_delta_orthogonal_everywhere(shape):
    w = np.array(ji.delta_orthogonal()(KEY, shape))
    place = tuple((k - 1) // 2 for k in shape[:-2])
    tap = w[place]
    gram = tap @ tap.T if shape[-2] <= shape[-1] else tap.T @ tap
    assert np.abs(gram - np.eye(len(gram))).max() < 2e-6
    w[place] = 0
    assert not w.any()
    if shape[-2] <= shape[-1]:
        theirs = jax.nn.initializers.delta_orthogonal()(KEY, shape)
        assert np.array_equal(ji.delta_orthogonal()(KEY, shape), theirs)


def test_grouped_delta_orthogonal_keeps_the_norm():
    x = jax.random.normal(KEY, (4, 8, 8, 12))
    layer = nn.Conv(
        12, (3, 3), feature_group_count=3, use_bias=False, kernel_init=ji.delta_orthogonal(groups=3)
    )
    y = layer.apply(layer.init(KEY, x), x)
    assert np.allclose(jnp.linalg.norm(y, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)


def test_orthogonal_is_haar():
    """First entries of many 3 x 3 draws have the law of a coordinate on the sphere: uniform on [-1, 1]."""
    stats = pytest.importorskip("scipy.stats")
    draws = jax.vmap(lambda k: ji.orthogonal()(k, (3, 3)))(jax.random.split(KEY, 160_000))
    for i, j in ((0, 0), (1, 2)):
        assert stats.kstest(np.asarray(draws[:, i, j]).astype(np.float64), "uniform", (-1, 2)).pvalue > 1e-4
    signs = jnp.linalg.det(draws) > 0
    assert within(float(signs.mean()), 0.5, 0.5 / 400)
    q, _ = jnp.linalg.qr(jax.random.normal(KEY, (160_000, 3, 3)))  # the wrong law: signs left to QR
    assert stats.kstest(np.asarray(q[:, 0, 0]).astype(np.float64), "uniform", (-1, 2)).pvalue < 1e-6


# 7. Norm or variance, you choose


@pytest.mark.parametrize(("rows", "columns"), [(64, 1024), (1024, 64)])
def test_preserve(rows, columns):
    x = jax.random.normal(jax.random.key(1), (4096, rows))
    w = ji.orthogonal(preserve="variance")(KEY, (rows, columns))
    assert abs(float(jnp.mean((x @ w) ** 2) / jnp.mean(x * x)) - 1) < 0.02
    spectral = np.linalg.norm(np.asarray(ji.orthogonal(preserve="spectral")(KEY, (rows, columns))), 2)
    assert abs(spectral / math.sqrt(columns / rows) - 1) < 1e-5


def test_spectral_normal_bounds_the_spectral_norm():
    for shape in ((400, 100), (100, 400)):
        norm = np.linalg.norm(np.asarray(ji.spectral_normal()(KEY, shape)), 2)
        assert 0.8 < norm / math.sqrt(shape[1] / shape[0]) < 3.2


# 8. Any gain, exactly

GAINS = {
    "relu": 1.414214, "tanh": 1.592537, "sigmoid": 1.846229, "selu": 1.0, "elu": 1.245198, "gelu": 1.533530,
    "silu": 1.676532, "mish": 1.486848, "softplus": 1.041867, "erf": 1.467167, "sin": 1.520867,
}  # fmt: skip


@pytest.mark.parametrize("name", GAINS)
def test_scaled_for(name):
    assert ji.scaled_for(name).law((100, 9)).stddev * 10 == pytest.approx(GAINS[name], abs=1e-6)


def test_closed_forms():
    assert ji.scaled_for("relu") == ji.he_normal() == ji.scaled_for(jax.nn.relu)
    assert ji.he_normal("leaky_relu") == ji.he_normal(negative_slope=0.01)
    assert ji.he_normal("prelu", negative_slope=0.25).scale == 2 / (1 + 0.25**2)
    assert ji.glorot_normal("linear") == ji.glorot_normal()
    assert ji.scaled_for("relu", "backward") == ji.he_normal(mode="fan_out")


# 10. Depth and role aware, composable

FACTORS = [
    (ji.residual(ji.he_normal(), 8), 1 / 4),
    (ji.residual(ji.he_normal(), 8, branches=3), 24**-0.5),
    (ji.residual(ji.he_normal(), 64, "fixup"), 1 / 8),
    (ji.residual(ji.he_normal(), 64, "fixup", branch_layers=4), 1 / 2),
    (ji.residual(ji.he_normal(), 64, "fixup", last=True), 0.0),
    (ji.residual(ji.he_normal(), 6, "t_fixup"), 0.67 * 6**-0.25),
    (ji.residual(ji.he_normal(), 6, "t_fixup", role="decoder"), 54**-0.25),
    (ji.residual(ji.he_normal(), 18, "deepnorm"), 144**-0.25),
    (ji.residual(ji.he_normal(), 18, "deepnorm", other_depth=12), 0.87 * (18**4 * 12) ** (-1 / 16)),
    (ji.residual(ji.he_normal(), 12, "deepnorm", role="decoder", other_depth=18), 144**-0.25),
    (ji.residual(ji.he_normal(), 16, "depth_mup"), 1 / 4),
    (ji.residual(ji.he_normal(), 16, "complete_p"), 1 / 16),
    (ji.residual(ji.he_normal(), 16, "layerwise", layer=8), 1 / 4),
    (ji.scaled(ji.scaled(ji.he_normal(), 0.5), 0.25), 1 / 8),
]


@pytest.mark.parametrize(("init", "factor"), FACTORS, ids=[repr(i) for i, _ in FACTORS])
def test_depth_factors(init, factor):
    base = np.asarray(ji.he_normal()(KEY, (64, 32)))
    w = np.asarray(init(KEY, (64, 32)))
    assert np.allclose(w, factor * base, rtol=1e-6, atol=0)
    assert init.law((64, 32)).stddev == pytest.approx(factor * math.sqrt(2 / 64), rel=1e-12)


def _residual_net(first, last, alpha=1.0, normalize=False, depth=64, width=128):
    """Second moment of the output, and the gradient's norm at the first block over that at the last."""
    keys = jax.random.split(jax.random.key(3), depth)
    weights = jax.vmap(
        lambda k: (
            first(jax.random.fold_in(k, 0), (width, width), jnp.float32),
            last(jax.random.fold_in(k, 1), (width, width), jnp.float32),
        )
    )(keys)
    x = jax.random.normal(jax.random.key(4), (32, width))

    def run(bumps):
        def block(h, wb):
            (w1, w2), bump = wb
            y = alpha * (h + bump) + jax.nn.relu((h + bump) @ w1) @ w2
            if normalize:
                y = (y - y.mean(-1, keepdims=True)) / y.std(-1, keepdims=True)
            return y, None

        return jax.lax.scan(block, x, (weights, bumps))[0]

    bumps = jnp.zeros((depth, 32, width))
    out, pull = jax.vjp(run, bumps)
    (g,) = pull(jax.random.normal(jax.random.key(6), out.shape))
    norms = jnp.linalg.norm(g.reshape(depth, -1), axis=1)
    return float(jnp.mean(out * out)), float(norms[0] / norms[-1])


def test_depth_rules_keep_the_signal_of_64_blocks():
    he = ji.he_normal()
    lecun = ji.lecun_normal()
    for first, last in (
        (ji.residual(he, 64, "fixup"), ji.residual(he, 64, "fixup", last=True)),
        (he, ji.residual(ji.scaled(lecun, 0.7), 64, "depth_mup")),
        (he, ji.residual(lecun, 64, "complete_p")),
    ):
        second_moment, gradient = _residual_net(first, last)
        assert 0.5 < second_moment < 2 and 0.5 < gradient < 2
    beta = ji.residual(ji.glorot_normal(), 64, "deepnorm")
    second_moment, gradient = _residual_net(beta, beta, ji.deepnorm(64).alpha, normalize=True)
    assert 0.5 < second_moment < 2 and 0.5 < gradient < 2
    second_moment, gradient = _residual_net(he, lecun)  # without a rule it explodes
    assert second_moment > 100


def test_mup():
    init = ji.mup(ji.he_normal(), (64, 64))
    assert init.law((256, 256)).stddev == pytest.approx(ji.he_normal().law((256, 256)).stddev)
    out_scaled = ji.mup(ji.he_normal(mode="fan_out"), (64, 32))
    # fan_out is multiplied by sqrt(m_out / m_in), as the mup package does
    expected = ji.he_normal(mode="fan_out").law((256, 64)).stddev * math.sqrt(2 / 4)
    assert out_scaled.law((256, 64)).stddev == pytest.approx(expected)
    assert ji.mup(ji.normal(0.1), (10, 64)).law((10, 256)).stddev == pytest.approx(0.1)
    assert ji.mup(ji.normal(0.1), (64, 10), multiplier=True).law((256, 10)).stddev == pytest.approx(0.1)
    w = ji.mup(ji.normal(0.1), (64, 10))(KEY, (256, 10))
    assert within(float(jnp.mean(w * w)), 0.025**2, 0.025**2 * math.sqrt(2 / 2560))
    readout = ji.mup("zeros", (64, 10))  # what its authors advise
    assert readout.law((256, 10)).mean == 0 and not readout(KEY, (256, 10)).any()
    with pytest.raises(ValueError, match="mup"):
        ji.mup(ji.normal(0.1), (3, 3, 8, 8))(KEY, (5, 5, 8, 8))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("init", [ji.lecun_normal(), ji.normal(0.02), ji.he_uniform()], ids=repr)
def test_a_draw_needs_no_memory_beside_its_result(init, dtype):
    """The goal is three float32 copies of the result; JAX's own draw takes four of them in bfloat16."""
    shape = (1024, 1024)

    def copies(init):
        compiled = jax.jit(lambda k: init(k, shape, dtype)).lower(KEY).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (4 * math.prod(shape))

    assert copies(init) < 0.01
    if jax.default_backend() == "cpu" and dtype == jnp.bfloat16 and init == ji.lecun_normal():
        assert copies(jax.nn.initializers.lecun_normal()) > 3


@pytest.mark.parametrize("init", ALL, ids=ids(ALL))
def test_lowers_for_accelerators(init):
    jax.jit(lambda k: init(k, (16, 8), jnp.bfloat16)).trace(KEY).lower(lowering_platforms=("cuda", "tpu"))


def test_64_bit_dtypes_warn_where_they_are_off():
    with pytest.warns(UserWarning, match="jax_enable_x64"):
        assert ji.normal()(KEY, (2,), jnp.float64).dtype == jnp.float32
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ji.he_normal()(KEY, (4, 4), jnp.complex128).dtype == jnp.complex128
        ours, theirs = ji.he_normal(), jax.nn.initializers.he_normal()
        assert np.array_equal(ours(KEY, (9, 4), jnp.float64), theirs(KEY, (9, 4), jnp.float64))


def test_every_name_makes_an_initializer_that_prints_itself():
    for name in ji.names():
        init, shape = ji.get(name), (3, 1, 4) if name == "stft" else (3, 8, 4)
        assert jax.eval_shape(lambda k, init=init, shape=shape: init(k, shape), KEY).shape == shape
        assert eval(repr(init), vars(ji)) == init


def test_admin_skips_bound_the_change_of_the_output():
    """Post-norm stacks of linear branches, every weight moved by the relative step delta: the change of the output is
    N delta^2 / (omega^2 + 1), which is what the three choices of omega make linear, logarithmic and constant."""
    n, seeds, delta = 96, 32, 1e-2

    @functools.partial(jax.jit, static_argnums=0)
    def change(depth, omega, key):
        def layer(carry, key):
            draws = jax.random.normal(key, (2, n, n)) * n**-0.5

            def step(x, w):
                h = omega * x + x @ w
                return h / jnp.sqrt(jnp.mean(h**2))

            return (step(carry[0], draws[0]), step(carry[1], draws[0] + delta * draws[1])), None

        x = jax.random.normal(jax.random.fold_in(key, depth), (n,))
        (a, b), _ = jax.lax.scan(layer, (x, x), jax.random.split(key, depth))
        return jnp.mean((a - b) ** 2) / delta**2

    keys = jax.random.split(jax.random.key(3), seeds)
    for depth in (8, 32):
        want, found = {}, {}
        for kind in ("constant", "log", "linear"):
            omega = ji.admin_skip(depth, kind)
            want[kind] = depth / (omega**2 + 1)
            samples = np.asarray([change(depth, omega, key) for key in keys])
            found[kind] = samples.mean(), 5 * samples.std() / seeds**0.5 + 4 / n * want[kind]
        for kind, (mean, slack) in found.items():
            agree = {other: abs(mean - value) < slack for other, value in want.items()}
            assert agree == {other: other == kind for other in want}, (depth, found, want)
    assert ji.admin_skip(1) == pytest.approx((2 / np.log(2) - 1) ** 0.5)
    with pytest.raises(ValueError, match=r"admin_skip.*change"):
        ji.admin_skip(4, "O(n)")
