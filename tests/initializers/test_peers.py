"""The tests that PyTorch, Keras and Haiku hold their initializers to, re-expressed for ours.

Kernels are (*spatial, in, out) here and (out, in, *spatial) in PyTorch. Statistical tests use 160,000 draws where the
peers use 500 to 6,000, at which a Kolmogorov-Smirnov test does not see a standard deviation that is 12 % off.
"""

import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import signal, stats

import jaxinit.activations as ja
import jaxinit.initializers as ji

pytestmark = pytest.mark.optimized  # bits are promised


KEY = jax.random.key(5)
SAMPLES = 160_000
SHAPES = {1: (SAMPLES,), 2: (400, 400), 4: (5, 8, 40, 100)}


def draws(init, shape, dtype=jnp.float32):
    w = np.asarray(init(KEY, shape, dtype)).astype(np.float64).ravel()
    assert w.size == SAMPLES
    return w


def follows(w, law):
    return stats.kstest(w, law.cdf).pvalue > 1e-4


def uniform(bound):
    return stats.uniform(-bound, 2 * bound)


# PyTorch, test/nn/test_init.py: gains


def test_gain_linear():
    """test_calculate_gain_linear"""
    for name in ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d"):
        assert ja.torch_gain(name) == 1


def test_gain_nonlinear():
    """test_calculate_gain_nonlinear, to the last bit"""
    expected = {
        "sigmoid": 1.0, "tanh": 1.6666666666666667, "relu": 1.4142135623730951, "leaky_relu": 1.4141428569978354,
        "selu": 0.75,
    }  # fmt: skip
    assert {name: ja.torch_gain(name) for name in expected} == expected


def test_gain_leaky_relu():
    """test_calculate_gain_leaky_relu"""
    slopes = {
        None: 1.4141428569978354,
        0: 1.4142135623730951,
        0.01: 1.4141428569978354,
        10: 0.14071950894605836,
    }
    assert {slope: ja.torch_gain("leaky_relu", slope) for slope in slopes} == slopes


@pytest.mark.parametrize("slope", [True, [1], {"a": "b"}], ids=repr)
def test_gain_leaky_relu_only_accepts_numbers(slope):
    """test_calculate_gain_leaky_relu_only_accepts_numbers"""
    with pytest.raises((TypeError, ValueError)):
        ja.torch_gain("leaky_relu", slope)
    with pytest.raises((TypeError, ValueError)):
        ji.he_normal(negative_slope=slope)


def test_gain_only_accepts_known_names():
    """test_calculate_gain_only_accepts_valid_nonlinearities"""
    letters = random.Random(123)
    for n in (2, 5, 25):
        name = "".join(letters.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(n))
        with pytest.raises(ValueError, match="nonlinearity"):
            ja.torch_gain(name)


# PyTorch: distributions


@pytest.mark.parametrize("dims", SHAPES)
def test_uniform_and_normal(dims):
    """test_uniform, test_normal"""
    assert follows(draws(ji.uniform(-1.3, 2.4), SHAPES[dims]), stats.uniform(-1.3, 3.7))
    assert follows(draws(ji.normal(2.6, mean=-1.7), SHAPES[dims]), stats.norm(-1.7, 2.6))


def test_the_law_tests_see_a_small_error():
    """160,000 draws show 4 % in the standard deviation and a shift of 4 % of it; 500 do not show 12 %."""
    w = draws(ji.normal(2.6, mean=-1.7), SHAPES[2])
    assert not follows(w, stats.norm(-1.7, 2.6 * 1.04)) and not follows(w, stats.norm(-1.6, 2.6))
    assert stats.kstest(w[:500], stats.norm(-1.7, 2.6 * 1.12).cdf).pvalue > 1e-4


def test_constant_ones_and_zeros():
    """test_constant, test_ones_and_zeros; Keras: test_zeros_initializer, test_ones_initializer, test_constant_*"""
    for shape in ((3,), (2, 5), (1, 4, 2, 3)):
        assert np.array_equal(ji.constant(6.25)(None, shape), np.full(shape, 6.25))
        assert np.array_equal(ji.ones()(None, shape), np.ones(shape))
        assert np.array_equal(ji.zeros()(None, shape), np.zeros(shape))
    value = np.random.default_rng(0).random((3, 3), np.float32)
    for init in (
        ji.constant(value),
        ji.get(value),
        ji.get(jnp.asarray(value)),
    ):  # Keras: get_method_with_tensor
        assert np.array_equal(init(None, (3, 3)), value)
        with pytest.raises(ValueError, match=r"\(10, 10\)"):
            init(None, (10, 10))


def test_eye():
    """test_eye, test_eye_only_works_on_2d_inputs (more axes are copies here); Keras: test_identity_initializer"""
    for shape in ((3, 3), (2, 5), (4, 1)):
        assert np.array_equal(ji.identity()(None, shape), np.eye(*shape))
        assert np.array_equal(ji.identity(2.0)(None, shape), 2 * np.eye(*shape))
    with pytest.raises(ValueError, match="at least 2-D"):
        ji.identity()(None, (3,))


# PyTorch: dirac


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_dirac_properties(spatial, groups):
    """test_dirac_properties: as many ones as the smaller side of each group has, nothing else"""
    sizes = random.Random(10 * spatial + groups)
    for _ in range(4):
        out, inputs = sizes.randint(1, 5), sizes.randint(1, 5 * groups)
        w = np.asarray(
            ji.dirac(groups=groups)(
                None, (*(sizes.randint(1, 5) for _ in range(spatial)), inputs, out * groups)
            )
        )
        assert np.count_nonzero(w) == w.sum() == min(out, inputs) * groups


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_dirac_identity(spatial):
    """test_dirac_identity: each group's first outputs are its inputs, its further outputs 0"""
    inputs, out, groups = 3, 9, 3
    x = jax.random.normal(KEY, (2, *(5,) * spatial, inputs * groups))
    layer = nn.Conv(
        out * groups, (3,) * spatial, feature_group_count=groups, kernel_init=ji.dirac(groups=groups)
    )
    y = np.asarray(layer.apply(layer.init(KEY, x), x))
    for g in range(groups):
        part = y[..., g * out : (g + 1) * out]
        assert np.allclose(part[..., :inputs], x[..., g * inputs : (g + 1) * inputs], atol=1e-6)
        assert not part[..., inputs:].any()


def test_dirac_shapes():
    """test_dirac_only_works_on_3_4_5d_inputs: below two axes there is no kernel; a 2-D one is a 1 x 1 convolution"""
    with pytest.raises(ValueError, match="at least 2-D"):
        ji.dirac()(None, (3,))
    assert np.array_equal(ji.dirac()(None, (3, 4)), np.eye(3, 4))


# PyTorch: Xavier and Kaiming


@pytest.mark.parametrize(
    "init", [ji.glorot_uniform(), ji.glorot_normal(), ji.he_uniform(), ji.he_normal()], ids=repr
)
@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_fan_initializers_need_two_axes(init, shape):
    """test_{xavier,kaiming}_{uniform,normal}_errors_on_inputs_smaller_than_2d; the way out is fan="""
    with pytest.raises(ValueError, match="fan="):
        init(KEY, shape)


@pytest.mark.parametrize("dims", [2, 4])
@pytest.mark.parametrize("gain", [1.0, 0.37])
def test_xavier(dims, gain):
    """test_xavier_uniform, test_xavier_normal"""
    shape = SHAPES[dims]
    std = gain * math.sqrt(2 / sum(ji.fans(shape)))
    assert sum(ji.fans(shape)) == {2: 800, 4: 40 * 140}[dims]
    uniformly, normally = ji.glorot_uniform(), ji.glorot_normal(distribution="normal")
    if gain != 1:
        uniformly, normally = ji.scaled(uniformly, gain), ji.scaled(normally, gain)
    assert follows(draws(uniformly, shape), uniform(std * math.sqrt(3)))
    assert follows(draws(normally, shape), stats.norm(0, std))


@pytest.mark.parametrize("dims", [2, 4])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("a", [0.0, 1.3])
def test_kaiming(dims, mode, a):
    """test_kaiming_uniform, test_kaiming_normal"""
    shape = SHAPES[dims]
    fan = ji.fans(shape)[mode == "fan_out"]
    std = math.sqrt(2 / ((1 + a * a) * fan))
    assert follows(draws(ji.he_uniform(negative_slope=a, mode=mode), shape), uniform(std * math.sqrt(3)))
    assert follows(
        draws(ji.he_normal(negative_slope=a, mode=mode, distribution="normal"), shape), stats.norm(0, std)
    )


def test_empty_kernels_are_no_error_and_no_warning():
    """test_kaiming_{uniform,normal}_warning_on_0element_tensor: PyTorch warns that nothing is done; so do we not"""
    for init in (ji.he_uniform(), ji.he_normal()):
        assert init(KEY, (0, 1)).shape == (0, 1)


# PyTorch: sparse, orthogonal


def test_sparse():
    """test_sparse_only_works_on_2d_inputs (more axes count as inputs here), test_sparse_default_std"""
    with pytest.raises(ValueError, match="sparse"):
        ji.sparse(sparsity=0.5)(KEY, (3,))
    w = np.asarray(ji.sparse(sparsity=0.5)(KEY, (2, 2, 3)))
    assert ((w == 0).sum(axis=(0, 1)) == 2).all()
    for std in (0.01, 0.13):
        w = np.asarray(ji.sparse(std, sparsity=0.15, per="input")(KEY, (450, 420))).astype(np.float64)
        assert ((w == 0).sum(axis=1) >= math.ceil(0.15 * 420)).all()  # PyTorch's columns are our rows
        assert w[w != 0].size > SAMPLES and follows(w[w != 0], stats.norm(0, std))


@pytest.mark.parametrize("gain", [1.0, 1.7])
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (3, 4, 2, 20), (4, 5, 3, 2)], ids=str)
def test_orthogonal(shape, gain):
    """test_orthogonal; Keras: test_orthogonal"""
    w = np.asarray(ji.orthogonal(gain)(KEY, shape)).reshape(-1, shape[-1])
    gram = w.T @ w if w.shape[0] > w.shape[1] else w @ w.T
    assert np.allclose(gram, gain**2 * np.eye(len(gram)), atol=2e-6, rtol=0)


# PyTorch: truncated normal


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["f32", "f64"])
def test_truncated_normal(dims, dtype):
    """test_trunc_normal_all_dtypes, test_trunc_normal_generator (a key is the generator)"""
    mean, std, a, b = -1.9, 0.7, -2.6, -1.1
    init = ji.truncated_normal(std, (a - mean) / std, (b - mean) / std, mean=mean)
    with jax.enable_x64(dtype == jnp.float64):
        w, again = draws(init, SHAPES[dims], dtype), draws(init, SHAPES[dims], dtype)
    ulp = 4 * float(jnp.finfo(dtype).eps) * abs(a)
    assert np.array_equal(w, again) and w.min() >= a - ulp and w.max() <= b + ulp
    assert follows(w, stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std))


@pytest.mark.parametrize(
    ("dtype", "distinct"), [(jnp.float32, 9000), (jnp.float16, 3000), (jnp.bfloat16, 1000)], ids=str
)
def test_truncated_normal_in_low_precision(dtype, distinct):
    """test_trunc_normal_low_precision, _unique_values, _no_boundary_values_small_std

    Rounding puts bfloat16 draws on a grid of relative step 2^-8, which a test of 160,000 draws against the continuous
    law sees; the law of the rounded draws is checked at the middles between grid points.
    """
    w = draws(ji.truncated_normal(1.0), SHAPES[1], dtype)
    assert np.isfinite(w).all() and w.min() >= -2 and w.max() <= 2
    assert np.unique(w[:10_000]).size > distinct
    grid = np.unique(w)
    middles = (grid[1:] + grid[:-1]) / 2
    empirical = np.searchsorted(np.sort(w), middles) / w.size
    distance = np.abs(empirical - stats.truncnorm(-2, 2).cdf(middles)).max()
    assert distance < 2.25 / math.sqrt(SAMPLES)  # Kolmogorov: p = 8e-5
    narrow = draws(ji.truncated_normal(0.1, -20.0, 20.0), SHAPES[1], dtype)
    assert np.abs(narrow).max() < 2


def test_the_low_precision_test_sees_jax_own_bfloat16():
    """JAX's own bfloat16 draws fail PyTorch's test of distinct values."""
    w = jax.random.truncated_normal(KEY, -2, 2, (10_000,), jnp.bfloat16)
    assert np.unique(np.asarray(w)).size <= 1000


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.float16], ids=["f32", "f64", "fp16"])
def test_truncated_normal_in_a_narrow_interval(dtype):
    """test_trunc_normal_narrow_interval"""
    with jax.enable_x64(dtype == jnp.float64):
        w = draws(ji.truncated_normal(1.0, 2.0, 3.0), SHAPES[1], dtype)
    assert w.min() >= 2 and w.max() <= 3
    if dtype == jnp.float16:  # a grid of step 2^-9 on [2, 3]: spread each point over its cell
        w = w + np.random.default_rng(0).uniform(-(2**-10), 2**-10, w.size)
        w = w[(w > 2.001) & (w < 2.999)]
        assert follows(w, stats.truncnorm(2.001, 2.999))
    else:
        assert follows(w, stats.truncnorm(2, 3))


# Keras, initializers/random_initializers_test.py


def test_keras_random_normal_and_uniform():
    """test_random_normal, test_random_uniform: equal keys (seeds) give equal values, others do not; configs too"""
    for init in (ji.normal(1.0), ji.uniform(-1.0, 1.0)):
        w = init(KEY, (25, 20))
        assert w.shape == (25, 20)
        assert np.array_equal(w, init(KEY, (25, 20)))
        assert np.array_equal(w, ji.from_config(init.to_config())(KEY, (25, 20)))
        assert not np.allclose(w, init(jax.random.key(6), (25, 20)))
    w = draws(ji.uniform(-1.0, 1.0), SHAPES[1])
    assert w.min() >= -1 and w.max() < 1


@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 500), ("fan_out", 320), ("fan_avg", 410)])
@pytest.mark.parametrize("distribution", ["truncated_normal", "normal", "uniform"])
def test_keras_variance_scaling(mode, fan, distribution):
    """test_variance_scaling: the standard deviation within five standard errors, where Keras allows 0.1"""
    w = draws(ji.variance_scaling(2.0, mode, distribution), (500, 320))
    squares = w * w * fan / 2
    assert abs(squares.mean() - 1) < 5 * squares.std() / math.sqrt(w.size)


def test_keras_get():
    """test_get_method, and the class names of test_orthogonal"""
    assert ji.get("glorot_normal") == ji.get("GlorotNormal") == ji.glorot_normal()
    assert ji.get("OrthogonalInitializer") == ji.get("orthogonal") == ji.orthogonal()
    assert ji.get("IdentityInitializer") == ji.identity() and ji.get("STFT") == ji.stft()
    with pytest.raises(ValueError, match="typo"):
        ji.get("typo")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((-1.0, "fan_in"), "scale"),
        ((2.0, "invalid_mode"), "mode"),
        ((2.0, "fan_in", "invalid_dist"), "distribution"),
    ],
)
def test_keras_variance_scaling_errors(arguments, named):
    """test_variance_scaling_invalid_{scale,mode,distribution}; Haiku: test_invalid_variance_scale"""
    with pytest.raises(ValueError, match=rf"variance_scaling\({named}=\.\.\.\)"):
        ji.variance_scaling(*arguments)


def test_haiku_fans():
    """test_compute_fans of Haiku: its fan_out is the product of all other axes, ours says which are outputs"""
    assert ji.fans((3, 4)) == (3, 4) and ji.fans((1, 2, 3, 4)) == (6, 8)
    assert ji.fans((3, 5, 9), in_axis=0, out_axis=(1, 2)) == (3, 45)
    assert ji.fans((3, 5, 7, 4), in_axis=(0, 1), out_axis=(2, 3)) == (15, 28)
    for shape in ((), (2,)):
        with pytest.raises(ValueError, match="at least 2-D"):
            ji.fans(shape)


def test_keras_einsum_axes():
    """VarianceScaling(input_axes=, output_axes=) as EinsumDense derives them from its equation"""
    cases = {
        ("ab,bc->ac", (3, 5)): (3, 5),
        ("abc,bde->acde", (3, 4, 5)): (3, 20),
        ("...x,xy->...y", (7, 9)): (7, 9),
        ("btd,dhk->bthk", (64, 8, 16)): (64, 128),
        ("bthk,hkd->btd", (8, 16, 64)): (128, 64),
    }
    for (equation, shape), fans in cases.items():
        assert ji.fans(shape, einsum=equation) == fans
        assert ji.lecun_normal(einsum=equation).law(shape).stddev == pytest.approx(fans[0] ** -0.5)


# Keras, constant_initializers_test.py: STFT

T, BINS = 256, 513
PHASE = -2 * np.pi * np.arange(T).reshape(-1, 1, 1) * (np.arange(BINS) / (2 * (BINS - 1))).reshape(1, 1, -1)


def _window(values, norm):
    return (values / norm).reshape(-1, 1, 1)


def test_keras_stft():
    """test_stft_initializer, to 1e-6 where Keras on JAX allows 1e-4"""
    shape = (T, 1, BINS)
    hamming = signal.get_window("hamming", T, True)
    blackman = signal.get_window("blackman", T, False)
    ramp = np.arange(1.0, T + 1)
    cases = [
        (ji.stft("real", None), np.cos(PHASE)),
        (ji.stft("real", "hamming", None, periodic=True), np.cos(PHASE) * _window(hamming, 1)),
        (ji.stft("imag", "blackman"), np.sin(PHASE) * _window(blackman, np.sqrt((blackman**2).sum()))),
        (ji.stft("imag", list(ramp), "spectrum"), np.sin(PHASE) * _window(ramp, ramp.sum())),
    ]
    for init, expected in cases:
        assert np.allclose(init(None, shape), expected, atol=1e-6)
        with jax.enable_x64(True):
            assert np.allclose(init(None, shape, jnp.float64), expected, atol=1e-12)
        assert ji.from_config(init.to_config()) == init == eval(repr(init), vars(ji))
    for bad in ({"side": "imaginary"}, {"scaling": "l2"}, {"window": "unknown"}, {"window": [0.0, 0.0]}):
        with pytest.raises(ValueError, match="stft"):
            ji.stft(**bad)
    for bad_shape in ((T, 2, BINS), (T, BINS), (T, 1, 1)):
        with pytest.raises(ValueError, match="stft"):
            ji.stft()(None, bad_shape)
    with pytest.raises(ValueError, match="as long as the frame"):
        ji.stft(window=[1.0, 2.0])(None, (3, 1, 4))


@pytest.mark.parametrize("periodic", [False, True])
def test_windows_are_those_of_scipy(periodic):
    from jaxinit.initializers._stft import WINDOWS, window_values

    for name in WINDOWS:
        for length in (1, 2, 7, 8):
            expected = signal.get_window(name, length, periodic)
            assert np.allclose(window_values(name, length, periodic), expected, atol=1e-12), (name, length)


@pytest.mark.parametrize(("scaling", "theirs"), [("density", "psd"), ("spectrum", "spectrum")])
def test_a_convolution_with_stft_kernels_is_scipy_stft(scaling, theirs):
    x = np.random.default_rng(1).normal(size=400).astype(np.float32)
    frame, step, fft_length = 64, 16, 128
    _, _, expected = signal.stft(
        x.astype(np.float64),
        1.0,
        "hann",
        frame,
        frame - step,
        fft_length,
        boundary=None,
        padded=False,
        scaling=theirs,
    )
    parts = {}
    for side in ("real", "imag"):
        init = ji.stft(side, "hann", scaling, periodic=True)
        layer = nn.Conv(fft_length // 2 + 1, (frame,), step, "VALID", use_bias=False, kernel_init=init)
        parts[side] = np.asarray(layer.apply(layer.init(KEY, x[None, :, None]), x[None, :, None]))[0].T
    assert np.allclose(parts["real"] + 1j * parts["imag"], expected, atol=2e-6)
