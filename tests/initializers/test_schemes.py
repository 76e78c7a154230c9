"""What the structured schemes promise, and the peers' own tests with samples large enough to see an error."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import special, stats

import jaxinit.initializers as ji

pytestmark = pytest.mark.optimized  # bits are promised


KEY = jax.random.key(2)
SAMPLES = 160_000
SHAPE = (400, 400)

LAWS = [
    (ji.normal(0.3, mean=-1.0), stats.norm(-1.0, 0.3)),
    (ji.uniform(-0.2, 0.7), stats.uniform(-0.2, 0.9)),
    (ji.truncated_normal(0.5, -1.0, 3.0, mean=2.0), stats.truncnorm(-1, 3, 2.0, 0.5)),
    (ji.glorot_uniform(), stats.uniform(-((6 / 800) ** 0.5), 2 * (6 / 800) ** 0.5)),
    (ji.glorot_normal(distribution="normal"), stats.norm(0, (2 / 800) ** 0.5)),
    (ji.he_normal(), stats.truncnorm(-2, 2, 0, (2 / 400) ** 0.5 / 0.8796256610342398)),
    (ji.he_uniform(negative_slope=0.5), stats.uniform(-((6 / 500) ** 0.5), 2 * (6 / 500) ** 0.5)),
    (ji.torch_kernel(), stats.uniform(-0.05, 0.1)),
    (ji.siren(first=True), stats.uniform(-1 / 400, 2 / 400)),
    (ji.siren(3.0), stats.uniform(-((6 / 400) ** 0.5) / 3, 2 * (6 / 400) ** 0.5 / 3)),
    (ji.spectral_normal(2.0), stats.norm(0, 2 / 20)),
    (ji.small(), stats.norm(0, (0.4 / 400) ** 0.5)),
    (ji.wang(4), stats.norm(0, 2 / 4 / 20)),
    (ji.random_walk(), stats.norm(0, (2 / 400) ** 0.5 * math.exp(1.2 / 397.6))),
    (ji.lora().a, stats.uniform(-0.05, 0.1)),
]


def ks(init, law):
    w = np.asarray(init(KEY, SHAPE, jnp.float32)).astype(np.float64).ravel()
    assert w.size == SAMPLES
    return stats.kstest(w, law.cdf).pvalue


@pytest.mark.parametrize(("init", "law"), LAWS, ids=[repr(i) for i, _ in LAWS])
def test_laws(init, law):
    assert ks(init, law) > 1e-4
    found = init.law(SHAPE)
    assert found.stddev == pytest.approx(law.std(), rel=1e-6)
    assert float(found.mean) == pytest.approx(law.mean(), abs=1e-9)


def test_the_law_test_sees_four_percent():
    init, law = LAWS[4]
    assert ks(init, stats.norm(0, 1.04 * law.std())) < 1e-4
    assert ks(ji.he_normal(), stats.norm(0, (2 / 400) ** 0.5)) < 1e-4  # truncated is not normal


def test_chrono():
    b = np.asarray(ji.chrono(50.0)(KEY, (SAMPLES,))).astype(np.float64)
    assert stats.kstest(np.exp(b), stats.uniform(1, 48).cdf).pvalue > 1e-4
    assert np.array_equal(ji.chrono(50.0, gate="input")(KEY, (8,)), -ji.chrono(50.0)(KEY, (8,)))
    fused = np.asarray(ji.chrono(50.0, layout="igfo")(KEY, (3, 8)))
    assert np.array_equal(fused[:, :2], -fused[:, 4:6]) and not fused[:, 2:4].any() and not fused[:, 6:].any()
    assert np.array_equal(ji.forget_bias(2.0, layout="igfo")(None, (4,)), [0, 0, 2, 0])


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("kernel", [(3,), (4,), (3, 2), (3, 1, 5)], ids=str)
def test_dirac_is_the_identity_of_a_convolution(kernel, groups):
    x = jax.random.normal(KEY, (2, *(6,) * len(kernel), 6))
    layer = nn.Conv(6, kernel, feature_group_count=groups, kernel_init=ji.dirac(groups=groups))
    y = layer.apply(layer.init(KEY, x), x)
    assert np.allclose(y, x, atol=1e-6)


def test_dirac_and_identity_are_those_of_torch():
    w = np.asarray(ji.dirac(groups=2)(None, (3, 2, 6)))  # out > in: the outputs beyond in stay 0
    expected = np.zeros((3, 2, 6))
    for group in range(2):
        for d in range(2):
            expected[1, d, 3 * group + d] = 1
    assert np.array_equal(w, expected)
    assert np.array_equal(ji.identity(3.0)(None, (2, 3, 4)), np.broadcast_to(3 * np.eye(3, 4), (2, 3, 4)))


def test_hadamard():
    wide = np.asarray(ji.hadamard()(None, (3, 8)))
    assert np.allclose(wide @ wide.T, np.eye(3)) and np.allclose(np.abs(wide), 8**-0.5)
    assert np.array_equal(ji.hadamard()(None, (5, 3)), np.eye(5, 3))
    from scipy.linalg import hadamard

    assert np.allclose(ji.hadamard()(None, (5, 6)), hadamard(8)[:5, :6] / 8**0.5)
    conv = np.asarray(ji.hadamard(2.0)(None, (3, 3, 2, 4)))
    assert np.allclose(conv[1, 1], 2 * hadamard(4)[:2] / 2) and np.count_nonzero(conv) == 8


@pytest.mark.parametrize("per", ["output", "input"])
def test_sparse_counts(per):
    axis = 0 if per == "output" else 1
    w = np.asarray(ji.sparse(0.01, sparsity=0.31, per=per)(KEY, (50, 40)))
    size = w.shape[axis]
    assert ((w == 0).sum(axis=axis) == math.ceil(0.31 * size)).all()
    w = np.asarray(ji.sparse(per=per)(KEY, (400, 400)))
    assert ((w != 0).sum(axis=axis) == 15).all()
    assert stats.kstest(w[w != 0].astype(np.float64), stats.norm(0, 1).cdf).pvalue > 1e-4
    places = (w != 0).mean(axis=1 - axis)
    assert abs(places.std() - math.sqrt(15 / 400 * 385 / 400 / 400)) < 5 * places.std() / math.sqrt(800)
    assert (np.asarray(ji.sparse(connections=9, per=per)(KEY, (4, 4))) != 0).all()


def test_looks_linear_networks_are_linear():
    x, y = jax.random.normal(KEY, (2, 5, 4))
    sizes = ((4, 8, False, True), (8, 12, True, True), (12, 3, True, False))
    weights = [
        ji.looks_linear(inputs=i, outputs=o)(jax.random.fold_in(KEY, n), (rows, columns))
        for n, (rows, columns, i, o) in enumerate(sizes)
    ]

    def net(h):
        for w in weights[:-1]:
            h = jax.nn.relu(h @ w)
        return h @ weights[-1]

    assert np.allclose(net(x + 2 * y), net(x) + 2 * net(y), atol=1e-5)
    assert np.abs(net(x)).max() > 0.1
    with pytest.raises(ValueError, match="even"):
        ji.looks_linear()(KEY, (3, 4))


@pytest.mark.parametrize("order", ["channel", "space"])
def test_icnr_upsamples_by_nearest_neighbours(order):
    x = jax.random.normal(KEY, (1, 5, 5, 3))
    layer = nn.Conv(2 * 9, (3, 3), kernel_init=ji.icnr(factor=3, order=order))
    y = np.asarray(layer.apply(layer.init(KEY, x), x))
    parts = y.reshape(1, 5, 5, 2, 9) if order == "channel" else np.moveaxis(y.reshape(1, 5, 5, 9, 2), 3, 4)
    assert np.allclose(parts, parts[..., :1], atol=1e-5)
    assert not np.allclose(parts[..., 0, 0], parts[..., 1, 0], atol=1e-2)


@pytest.mark.parametrize(("side", "padding"), [(3, "SAME"), (3, "VALID"), (6, "VALID")])
def test_icnr_transposed_convolutions_upsample_by_nearest_neighbours(side, padding):
    x = jax.random.normal(KEY, (1, 5, 4, 3))
    init = ji.icnr(factor=3, order="transposed")
    layer = nn.ConvTranspose(2, (side, side), (3, 3), padding, use_bias=False, kernel_init=init)
    y = np.asarray(layer.apply(layer.init(KEY, x), x))
    coarse = y[:, ::3, ::3]
    assert np.allclose(y, coarse.repeat(3, axis=1).repeat(3, axis=2), atol=1e-5)
    assert coarse.std() > 0.1
    plain = nn.ConvTranspose(2, (side, side), (3, 3), padding, use_bias=False)  # the checkerboard itself
    y = np.asarray(plain.apply(plain.init(KEY, x), x))
    assert not np.allclose(y, y[:, ::3, ::3].repeat(3, axis=1).repeat(3, axis=2), atol=1e-2)
    with pytest.raises(ValueError, match="divide by 3"):
        init(KEY, (4, 4, 3, 2))


@pytest.mark.parametrize("n", [10, 20, 50, 300])
def test_random_walk_gains_stop_the_drift_of_the_typical_network(n):
    """E log |phi(W h)|^2 / |h|^2 in closed form: a chi-square of n (linear) or binomially many (ReLU) degrees."""
    active = np.arange(1, n + 1)
    chances = stats.binom.pmf(active, n, 0.5)
    exact = {
        "linear": -special.digamma(n / 2) - math.log(2),
        "relu": -np.sum(chances / chances.sum() * (special.digamma(active / 2) + math.log(2))),
    }
    for activation, logarithm in exact.items():
        variance = ji.random_walk(activation).law((n, n)).stddev ** 2
        he = math.log({"linear": 1.0, "relu": 2.0}[activation] / n)
        assert abs(math.log(variance) - logarithm) < 0.06 * abs(he - logarithm)  # he's own drift, all but 6 %


def test_mimetic_attention():
    d, heads = 64, 4
    w = ji.mimetic_attention(KEY, d, heads)
    value_out = np.asarray(w.value @ w.out)
    noise = value_out + 0.4 * np.eye(d)
    assert abs(noise.std() / (0.4 / 8) - 1) < 5 / math.sqrt(2 * d * d)
    assert abs(noise.mean()) < 5 * noise.std() / d
    for h in range(heads):
        part = slice(h * 16, (h + 1) * 16)
        product = np.asarray(w.query[:, part] @ w.key[:, part].T)
        assert np.linalg.matrix_rank(product, tol=1e-3) == 16
        s = np.linalg.svd(product, compute_uv=False)
        q, k = np.asarray(w.query[:, part]), np.asarray(w.key[:, part])
        assert np.allclose(q.T @ q, np.diag(s[:16]), atol=1e-3) and np.allclose(k.T @ k, q.T @ q, atol=1e-3)
    with pytest.raises(ValueError, match="divisor"):
        ji.mimetic_attention(KEY, 10, 4)


def test_heads_are_orthogonal_one_by_one():
    out = ji.for_heads(ji.scaled(ji.orthogonal(), 2.0), 4, "in")(KEY, (4 * 8, 32)).reshape(4, 8, 32)
    for w in out:
        assert np.allclose(w @ w.T, 4 * np.eye(8), atol=1e-5)
    assert ji.for_heads(ji.he_normal(), 4) == ji.he_normal()


def test_einsum_axes_of_keras():
    assert ji.fans((4, 5, 6), einsum="xa,abc->xbc") == (4, 30)
    assert ji.fans((3, 4, 5), einsum="nhd,hde->ne") == (12, 5)
    assert ji.fans((8, 4, 5), einsum="ebc, ecd -> ebd") == (4, 5)
    with pytest.raises(ValueError, match="einsum"):
        ji.fans((3, 4), einsum="nhd,hde->ne")


def test_torch_zero_dimensions_and_compatibility():
    assert ji.he_uniform(negative_slope=5**0.5).law(SHAPE).stddev == pytest.approx(
        ji.torch_kernel().law(SHAPE).stddev
    )
    assert ji.torch_bias(400) == ji.uniform(-0.05, 0.05)
