"""The analysis of a model's program, held against Monte Carlo of the same nets, closed forms and SciPy."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxinit.adapt import _analytic_algebra, analyze, calibrate
from jaxinit.adapt._analytic import inputs_of
from jaxinit.adapt._analytic_algebra import extreme, multiply, over, summed
from jaxinit.adapt._analytic_fields import combine, covariance
from jaxinit.adapt._analytic_measure import sample
from jaxinit.adapt._analytic_order import largest, log_sum_exp, softmax_pair, softmax_square
from jaxinit.adapt._analytic_pointwise import IDENTITY, Applied, apply, settle
from jaxinit.adapt._analytic_pooling import Pooled
from jaxinit.adapt._analytic_rules import equation
from jaxinit.adapt._analytic_shapes import broadcast, concatenated, part, reshaped, transposed
from jaxinit.adapt._analytic_values import field_of_data, fresh_axes, from_moments, white
from jaxinit.adapt._analytic_walk import Walk
from jaxinit.probe import probe, products, values

KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
RELU = apply(jax.extend.core.primitives.max_p, {}, [IDENTITY, 0.0])
ERF = apply(jax.extend.core.primitives.erf_p, {}, [IDENTITY])


def exchangeable(shape: tuple[int, ...], q: float, c: float) -> Any:
    """Units that are independent along the last axis, and of correlation c between any two indices of the others."""
    table = np.zeros((2,) * len(shape))
    table[..., 1] = c * q
    table[(1,) * len(shape)] = q
    return from_moments(fresh_axes(shape), 0.0, table)


def arc_cosine(q: float, c: float) -> float:
    """E[relu relu] at correlation c (Cho & Saul 2009)."""
    angle = math.acos(c)
    return q / (2 * math.pi) * (math.sin(angle) + (math.pi - angle) * c)


def test_elementwise_functions_have_their_dual_kernels() -> None:
    x = exchangeable((6, 40), 1.7, 0.3)
    relu = settle(Applied(RELU, x))
    same, other = relu.moments(x.axes[0])[1], relu.moments(x.axes[0])[0]
    assert relu.mean == pytest.approx(math.sqrt(1.7 / (2 * math.pi)), rel=1e-6)
    assert (same, other) == pytest.approx((1.7 / 2, arc_cosine(1.7, 0.3)), rel=1e-4)
    erf = settle(Applied(ERF, x)).moments(x.axes[0])
    expected = [2 / math.pi * math.asin(2 * 1.7 * c / (1 + 2 * 1.7)) for c in (1.0, 0.3)]  # Williams 1997
    assert (erf[1], erf[0]) == pytest.approx(expected, rel=1e-5)
    pooled = over(relu, [0]).times(1 / 6)
    assert pooled.second == pytest.approx(same / 6 + other * 5 / 6, rel=1e-9)
    # Twin: positions taken for independent.
    blind = over(settle(Applied(RELU, exchangeable((6, 40), 1.7, 0.0))), [0]).times(1 / 6)
    assert abs(blind.second / pooled.second - 1) > 0.05


def test_sums_know_common_ancestors() -> None:
    x, y = white((5, 8)), white((5, 8), 0.0, 2.0)
    both = combine([(x, 1.0), (y.like(axes=y.axes), 1.0)], x.axes)
    assert both.second == pytest.approx(3.0)
    assert combine([(both, 1.0), (x, 1.0)], x.axes).second == pytest.approx(4.0 + 2.0)  # twin of: 1 + 1 + 2
    relu = settle(Applied(RELU, x))
    exact = 1.0 + 0.5 + 2 * 0.5  # E[(x + relu x)^2]
    assert combine([(x, 1.0), (relu, 1.0)], x.axes).second == pytest.approx(exact, rel=1e-6)
    square = multiply(x, x)
    assert (square.mean, square.second) == pytest.approx((1.0, 3.0))
    centred = combine(
        [(x, 1.0), (broadcast(over(x, [1]).times(1 / 8), (5, 8), [0]).renamed({}, x.axes), -1.0)], x.axes
    )
    assert centred.second == pytest.approx(1 - 1 / 8)


def test_the_covariances_of_data_are_those_it_was_drawn_from() -> None:
    field = exchangeable((40, 60), 2.0, 0.25)
    drawn = [sample(field, jnp.float32, np.random.default_rng(n)) for n in range(40)]
    tables = [f.moments(f.axes[0] + f.axes[1]) for f in map(field_of_data, drawn)]
    found, stderr = np.mean(tables, axis=0), np.std(tables, axis=0) / math.sqrt(40)
    assert (np.abs(found - field.table()) <= 5 * stderr).all()
    assert not (np.abs(found - exchangeable((40, 60), 2.0, 0.35).table()) <= 5 * stderr).all()


def test_rearranging_keeps_moments() -> None:
    x = field_of_data(RNG.normal(size=(4, 6, 10)) + RNG.normal(size=(1, 6, 1)) + 2.0)
    heads = reshaped(x, (4, 6, 2, 5))
    assert reshaped(heads, (4, 6, 10)).table() == pytest.approx(
        0 * x.table() + reshaped(heads, (4, 6, 10)).table()
    )
    assert transposed(heads, [2, 0, 1, 3]).second == pytest.approx(x.second)
    axes = x.axes[1]
    assert reshaped(heads, (24, 10)).table(axes) == pytest.approx(x.table(axes))
    halves = part(x, 2, (0, 1), 5), part(x, 2, (5, 1), 5)
    assert covariance(*halves, x.axes[0] + x.axes[1]) == pytest.approx(x.table()[..., 0])
    assert concatenated(halves, 2).second == pytest.approx(x.second)
    assert covariance(x, x, ()) == pytest.approx(x.variance)


def test_order_statistics_and_softmax() -> None:
    for n in (3, 7):
        mean, square = (
            integrate.quad(
                lambda z, k=k, n=n: z**k * n * stats.norm.pdf(z) * stats.norm.cdf(z) ** (n - 1), -9, 9
            )[0]
            for k in (1, 2)
        )
        assert largest(n) == pytest.approx((mean, square - mean**2), rel=1e-6)
    x = exchangeable((9, 30), 1.0, 0.4)
    top = settle(extreme(Applied(RELU, x), [0], 1))
    several = [sample(x, jnp.float32, np.random.default_rng(n)) for n in range(300)]
    squares = [float(jnp.mean(jnp.square(jnp.maximum(v, 0).max(axis=0)))) for v in several]
    assert top.second == pytest.approx(np.mean(squares), rel=0.02)
    for variance in (0.3, 4.0):  # of two: the square of a logistic function of their difference
        logistic = lambda z, v=variance: (1 + math.exp(-math.sqrt(2 * v) * z)) ** -2 * stats.norm.pdf(z)  # noqa: E731
        assert softmax_square(2, variance) == pytest.approx(integrate.quad(logistic, -9, 9)[0], rel=1e-4)
        both = [
            integrate.quad(lambda z, s=math.sqrt(2 * (variance - c)): (  # noqa: B008
                stats.logistic.cdf(s * z) * stats.logistic.sf(s * z) * stats.norm.pdf(z)), -9, 9)[0]
            for c in (-0.01, 0.01)
        ]  # fmt: skip
        assert softmax_pair(2, variance) == pytest.approx((both[1] - both[0]) / 0.02, rel=1e-3)


def test_attention_goes_to_keys_that_are_alike(monkeypatch: Any) -> None:
    """By NumPy, of many draws; the fewer units, the more unequally alike the keys."""
    x, heads, draws = RNG.normal(size=(4, 12, 32)).astype("f4"), 4, 400

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.MultiHeadDotProductAttention(
                heads, name="att", kernel_init=nn.initializers.normal(32**-0.5)
            )(x)

    found = []
    for _ in range(draws):
        w = RNG.normal(size=(4, 32, 32)) / math.sqrt(32)
        q, k, v = ((x @ each).reshape(4, 12, heads, 8) for each in w[:3])
        a = np.exp(np.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(8))
        z = np.einsum("bhij,bjhd->bihd", a / a.sum(axis=-1, keepdims=True), v).reshape(4, 12, 32) @ w[3]
        found.append(np.square(z).mean())
    mean, error = np.mean(found), np.std(found) / math.sqrt(draws)
    expected = analyze(Attention(), x).second_moment.mean[-1, 0]
    assert abs(mean / expected - 1) <= 5 * error / expected + 0.05
    monkeypatch.setattr(_analytic_algebra, "softmax_pair", lambda n, variance: 0.0)  # twin: all equally alike
    blind = analyze(Attention(), x).second_moment.mean[-1, 0]
    assert not abs(mean / blind - 1) <= 5 * error / blind + 0.05


def test_where_the_largest_are_chosen_the_site_behind_is_measured() -> None:
    """Two of three experts: which ones depends on the shares that they are weighed with, and the analysis says so."""

    class Experts(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            share = nn.softmax(nn.Dense(3, name="router")(x))
            chosen = jax.nn.one_hot(jax.lax.top_k(share, 2)[1], 3, dtype=x.dtype).sum(axis=1)
            up = self.param("up", nn.initializers.normal(0.2), (3, 8, 6))
            down = self.param("down", nn.initializers.normal(0.2), (3, 6, 4))
            return jnp.einsum("beh,ehk,be->bk", jnp.einsum("bd,edh->beh", x, up), down, share * chosen)

    x = RNG.normal(size=(16, 8)).astype("f4")
    _, record = calibrate(Experts(), x, KEY, method="analytic")
    assert [site.why.startswith("measured on the batch; top_k") for site in record] == [False, False, True]


class Everything(nn.Module):
    """One of each: convolution, pooling, norm, attention with a causal mask, gate, residual sum, concatenation."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.gelu(nn.LayerNorm(name="ln")(nn.Conv(96, (3,), name="conv")(x)))
        x = nn.Dense(96, name="mix")(nn.avg_pool(x, (2,), (2,)))
        h = nn.RMSNorm(name="rms")(x)
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + nn.MultiHeadDotProductAttention(4, name="att")(h, h, mask=mask)
        gate = nn.silu(nn.Dense(128, name="gate")(x)) * nn.Dense(128, name="value")(x)
        y = jnp.concatenate([x, nn.Dense(96, name="down")(gate)], axis=-1)
        y = nn.Dense(64, name="last")(jnp.maximum(y, jnp.tanh(y)))
        return nn.Dense(5, name="out")(jnp.max(y, axis=1) - jnp.mean(y, axis=1))


@pytest.fixture(scope="module")
def everything() -> Any:
    x = RNG.normal(size=(6, 16, 32)).astype("f4")
    traced = products(Everything(), (x,))
    look = values(traced)

    def measure(leaves: Any) -> Any:
        return jnp.stack([jnp.mean(jnp.square(v)) for v in look(leaves, {}, (x,), KEY)[1]])

    def draw(key: Any) -> Any:
        return jax.tree.leaves(traced.model.init(key, (x,))[0])

    draws = jax.jit(lambda keys: jax.lax.map(draw, keys))(jax.random.split(KEY, 12))
    return x, traced, draws, jax.jit(lambda leaves: jax.lax.map(measure, leaves))


def test_a_model_of_everything_against_monte_carlo(everything: Any) -> None:
    x, traced, draws, measure = everything
    found = np.log(np.asarray(measure(draws), np.float64))
    walk = Walk(traced, [np.asarray(v[0]) for v in draws], {}, inputs_of([(x,)]), KEY, ideal=True)
    expected = np.log([walk.found[n][0].second for n in range(len(traced.products))])
    stderr = found.std(axis=0) / math.sqrt(len(found))
    off = np.abs(found.mean(axis=0) - expected)
    names = [p.name for p in traced.products]
    assert (off <= 5 * stderr + 0.05).all(), dict(zip(names, zip(off, stderr, strict=True), strict=True))
    assert not any(f.notes for each in walk.found.values() for f in each)
    # Twin: attention without its mask, so that each position averages over all.
    blind = Walk(traced, [np.asarray(v[0]) for v in draws], {}, inputs_of([(x + 3.0,)]), KEY, ideal=True)
    wrong = np.log([blind.found[n][0].second for n in range(len(names))])
    assert not (np.abs(found.mean(axis=0) - wrong) <= 5 * stderr + 0.05).all()


def test_calibration_from_scales_far_off(everything: Any) -> None:
    x, traced, draws, measure = everything
    calibrated = []
    for n in range(3):
        rng = np.random.default_rng(n)
        bad = [v[n] * np.float32(10.0 ** rng.uniform(-1, 1)) if v[n].ndim > 1 else v[n] for v in draws]
        params = jax.tree.unflatten(jax.tree.structure(traced.abstract[0]), bad)
        new, record = calibrate(Everything(), x, KEY, method="analytic", params=params)
        assert record and all(abs(site.after - 1) < 1e-3 for site in record)
        calibrated.append(jax.tree.leaves(new))
    stack = [jnp.stack(v) for v in zip(*calibrated, strict=True)]
    stack = [jnp.concatenate([v, v, v, v]) for v in stack]  # the compiled program takes twelve
    found = np.asarray(measure(stack))[:3].mean(axis=0)
    assert (np.abs(found - 1) < 0.15).sum() >= len(found) - 2 and (np.abs(found - 1) < 0.35).all(), found


def chain(n: int) -> nn.Module:
    return nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(n), nn.tanh, nn.Dense(16)])


def test_directions_keep_signals_or_gradients() -> None:
    rng = np.random.default_rng(0)
    params = {
        f"layers_{k}": {"kernel": jnp.asarray(rng.normal(size=s), jnp.float32), "bias": jnp.zeros(s[1])}
        for k, s in ((0, (32, 64)), (2, (64, 256)), (4, (256, 16)))
    }
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    scales = {}
    for direction in ("forward", "backward", "both"):
        new, record = calibrate(chain(256), x, KEY, method="analytic", params=params, direction=direction)
        scales[direction] = np.mean(np.square(new["layers_2"]["kernel"])) * np.array([64.0, 256.0])
        assert record
    forward = 1 / integrate.quad(lambda z: math.tanh(z) ** 2 * stats.norm.pdf(z), -9, 9)[0]
    backward = 1 / integrate.quad(lambda z: (1 - math.tanh(z) ** 2) ** 2 * stats.norm.pdf(z), -9, 9)[0]
    assert scales["forward"][0] == pytest.approx(forward, rel=0.08)
    assert scales["backward"][1] == pytest.approx(backward, rel=0.08)
    both = [scales[d][0] for d in ("forward", "backward", "both")]
    assert 2 / both[2] == pytest.approx(1 / both[0] + 1 / both[1], rel=0.02)


def test_a_zero_initialized_head_is_kept_without_a_warning() -> None:
    """Its second moment is 0 whatever the scale of the first site: there 0 / 0 says nothing of how errors grow."""
    model = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(4, kernel_init=nn.initializers.zeros)])
    new, record = calibrate(model, jax.ShapeDtypeStruct((4, 6), jnp.float32), KEY, method="analytic")
    assert [site.status for site in record] == ["converged", "zero-initialized branch kept"]
    assert record["layers_2"].after == 0 and not new["layers_2"]["kernel"].any()


class Odd(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        kernel = self.param("kernel", nn.initializers.normal(3.0), (32, 32))
        x = jnp.sort(x @ (kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)), axis=-1)
        return nn.Dense(4, name="out")(x)


def test_what_has_no_rule_is_measured_and_said() -> None:
    x = jax.ShapeDtypeStruct((16, 32), jnp.float32)
    run = analyze(Odd(), x)
    assert run.opaque == ("sort measured: there is no rule for it",)
    assert run.second_moment.mean[:, 0] == pytest.approx([1.0, 1.0], rel=0.2)
    _, record = calibrate(Odd(), np.ones((16, 32), "f4"), KEY, method="analytic")
    assert "sort" in record["out"].why
    assert next(s for s in record if s.name != "out").status == "constant"


class ByOne(nn.Module):
    """A signal times, or over, one of its numbers (a spectral norm is one)."""

    over: bool

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Dense(32)(x)
        one = x[0, 0]
        return nn.Dense(4, name="out")(x / jnp.where(one != 0, one, 1) if self.over else x * one)


def test_one_random_number_for_all() -> None:
    x = jax.ShapeDtypeStruct((16, 32), jnp.float32)
    run = analyze(ByOne(False), x)
    assert run.second_moment.mean[-1, 0] == pytest.approx(1.0, rel=0.05) and not run.opaque
    assert analyze(ByOne(True), x).opaque == ("div measured: division by a signal that can be 0",)


class Fused(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        kernels = [
            self.param(name, nn.initializers.normal(s), (32, 16)) for name, s in (("a", 0.1), ("b", 2.0))
        ]
        return jnp.tanh(x @ jnp.concatenate(kernels, axis=1))


def test_kernels_put_together_are_taken_for_alike_and_it_is_said() -> None:
    (note,) = analyze(Fused(), jax.ShapeDtypeStruct((8, 32), jnp.float32)).opaque
    assert "unequal size" in note


def test_nothing_is_drawn() -> None:
    """Ten billion parameters."""
    model = nn.Sequential([nn.Dense(100_000), nn.relu, nn.Dense(100_000), nn.relu, nn.Dense(10)])
    run = analyze(model, jax.ShapeDtypeStruct((4, 100), jnp.float32))
    assert run.second_moment.mean[:, 0] == pytest.approx([1.0, 0.5, 0.25], rel=1e-3)


def test_bad_input() -> None:
    x = np.ones((4, 3), "f4")
    with pytest.raises(ValueError, match="direction"):
        calibrate(nn.Dense(3), x, KEY, method="analytic", direction="sideways")
    with pytest.raises(ValueError, match=r"direction=.*lsuv"):
        calibrate(nn.Dense(3), x, KEY, direction="both")
    with pytest.raises(ValueError, match="biases"):
        calibrate(nn.Dense(3), x, KEY, method="analytic", biases="centre")


def test_sums_of_squares_are_normalizers() -> None:
    x = white((3, 4))
    square = apply(jax.extend.core.primitives.square_p, {}, [IDENTITY])
    mean = summed(Applied(square, x), [1]).times(1 / 4)
    assert mean.norm and mean.second > 1.0
    assert settle(
        Applied(apply(jax.extend.core.primitives.sqrt_p, {}, [IDENTITY]), mean)
    ).second == pytest.approx(1.0)


class Stack(nn.Module):
    phi: Any
    dtype: Any = jnp.float32
    aside: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        if self.aside:
            return nn.Dense(4, name="aside", param_dtype=self.dtype)(x), Stack(
                self.phi, self.dtype, name="main"
            )(x)
        for n in range(6):
            x = self.phi(nn.Dense(16, name=f"d{n}", dtype=self.dtype, param_dtype=self.dtype)(x))
        return nn.Dense(2, name="head", dtype=self.dtype, param_dtype=self.dtype)(x)


def test_where_errors_grow_on_the_way_sites_are_measured() -> None:
    """d ln q' / d ln q at q = 1 is 1.46 a layer for x cos x: E[phi^2] = (q + q (1 - 4 q) exp(-2 q)) / 2; 1 for ReLU.

    In bfloat16, where a change of scale as small as the one that is tried is rounded away.
    """
    shape = jax.ShapeDtypeStruct((64, 16), jnp.bfloat16)
    model = Stack(lambda x: x * jnp.cos(x), jnp.bfloat16)
    _, record = calibrate(model, shape, KEY, method="analytic")
    q, e = 1.0, np.exp(-2.0)
    exact = (1 + e * (1 - 4 * q) - 4 * q * e - 2 * q * (1 - 4 * q) * e) / (1 + (1 - 4 * q) * e)
    assert abs(exact - 1.46) < 0.01 and {s.status for s in record} == {"converged"}
    assert [s.why for s in record][:2] == ["", ""] and "measured" in record["head"].why
    grown = float(record["head"].why.split(" times")[0].rsplit(" ", 1)[1])
    assert abs(grown / exact**6 - 1) < 0.1
    # The first site of all is not the one whose errors arrive: those of all that the inputs meet are tried.
    aside = calibrate(Stack(lambda x: x * jnp.cos(x), jnp.bfloat16, True), shape, KEY, method="analytic")[1]
    assert [s.name for s in aside if "measured" in s.why] == [f"main/{s.name}" for s in record if s.why]
    calm = calibrate(Stack(nn.relu), jax.ShapeDtypeStruct((64, 16), jnp.float32), KEY, method="analytic")[1]
    assert {s.status for s in calm} == {"converged"} and not any(s.why for s in calm)


def test_a_kernel_keeps_a_mean_that_is_within_its_noise() -> None:
    """Pushes all units one way: E[z] = n m E[relu], whatever scale the analysis gives it."""
    rng, n = np.random.default_rng(0), 64
    first, second = (rng.normal(size=(n, n)) * math.sqrt(k / n) for k in (1, 8))
    second += -0.018 * second.std() - second.mean()
    kernels = {"layers_0": first, "layers_2": second}
    params = {k: {"kernel": jnp.asarray(v, jnp.float32), "bias": jnp.zeros(n)} for k, v in kernels.items()}
    model, x = nn.Sequential([nn.Dense(n), nn.relu, nn.Dense(n)]), rng.normal(size=(64, n)).astype("f4")
    run = analyze(model, x, params=params)
    expected = n * second.mean() * math.sqrt(run.second_moment.mean[0, 0] / (2 * math.pi))
    assert run.mean.mean[1, 0] == pytest.approx(expected, rel=0.02)
    new, record = calibrate(model, x, KEY, method="analytic", params=params)
    again = analyze(model, x, params=new)
    assert again.second_moment.mean[:, 0] == pytest.approx([1.0, 1.0], rel=1e-4)
    # The mean moves with the kernel: one pass finds both scales, one sees that they rest.
    assert record.evaluations == 6 and [s.iterations for s in record] == [1, 1]


class Wide(nn.Module):
    """Attention-like weights, and their logarithms, from logits whose exponentials may have no finite moments."""

    spread: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Any) -> Any:
        logits = nn.Dense(32, kernel_init=nn.initializers.normal(self.spread))(x).astype(self.dtype)
        return [
            nn.Dense(256, kernel_init=nn.initializers.normal(1.0))(phi(logits).astype(jnp.float32))
            for phi in (nn.softmax, nn.log_softmax)
        ]


@pytest.mark.parametrize("spread", [1e-3, 30.0])
def test_softmax_and_its_logarithm_of_logits_of_any_width(spread: float) -> None:
    x = np.random.default_rng(0).normal(size=(16, 256)).astype("f4")
    found, wrong, coarse = (
        analyze(Wide(s, dtype), x).second_moment.mean[1:, 0]
        for s, dtype in ((spread, jnp.float32), (0.2, jnp.float32), (spread, jnp.bfloat16))
    )
    assert coarse == pytest.approx(found, rel=1e-6)  # the sum is taken in float32 and rounded
    run = probe(Wide(spread), x, seeds=64, sites="ops", backward=False, record=("second_moment",), devices=1)
    mean, stderr = run.second_moment.mean[1:, 0], run.second_moment.stderr[1:, 0]
    assert (np.abs(found - mean) < 5 * stderr).all()
    assert not (np.abs(wrong - mean) < 5 * stderr).any()  # twin: logits of another width
    assert (
        abs(found[0] / (1 if spread > 1 else 1 / 32) - 1) < 0.02
    )  # one entry has all the weight, or all the same


def test_log_sum_exp_of_gaussians() -> None:
    """Of two it is their mean plus log(2 cosh(difference / 2)), and those are independent."""
    for variance in (0.3, 9.0, 400.0):
        s = math.sqrt(variance / 2)
        density = lambda z, k, s=s: np.logaddexp(s * z, -s * z) ** k * stats.norm.pdf(z)  # noqa: E731
        one, two = (2 * integrate.quad(density, 0, 12, (k,))[0] for k in (1, 2))
        mean, spread = log_sum_exp(2, variance)
        assert mean == pytest.approx(one, rel=2e-3)
        assert spread == pytest.approx(variance / 2 + two - one**2, rel=5e-3)


def test_what_is_not_a_number_is_refused() -> None:
    model = nn.Sequential([nn.Dense(16), jax.lax.linalg.cholesky, nn.Dense(4)])
    with pytest.raises(ValueError, match="not a number"):
        analyze(model, jax.ShapeDtypeStruct((16, 16), jnp.float32))


def test_convolutions_see_less_at_the_edges() -> None:
    """Second moments of ReLU and kernels of mean 0, position by position: q'_p = sum of q / 2 over the taps inside."""
    model = nn.Sequential(
        [nn.Conv(8, (3, 3)), nn.relu, nn.Conv(8, (3, 3)), nn.relu, nn.Conv(8, (3, 3), (2, 2))]
    )
    found = analyze(model, jax.ShapeDtypeStruct((4, 6, 6, 3), jnp.float32)).second_moment.mean[:, 0]
    q, expected = np.ones((6, 6)), list[float]()
    for share in (1.0, 0.5, 0.5):
        padded = np.pad(share * q, 1)
        q = sum(padded[i : i + 6, j : j + 6] for i in range(3) for j in range(3)) / 9
        expected.append(float(q.mean()))
    expected[-1] = float(q[1::2, 1::2].mean())  # padded behind: windows begin at the edge
    assert found == pytest.approx(expected, rel=1e-4)
    # Twin: every position as strong as any other.
    assert abs((16 / 18) ** 4 / 2 / expected[1] - 1) > 0.02


def test_groups_are_normalized_without_what_their_channels_share() -> None:
    """What a GroupNorm hands on has second moment 1, whatever channels have in common along positions."""
    layers = [nn.Conv(16, (3, 3)), nn.relu, nn.Conv(16, (3, 3)), nn.GroupNorm(4), nn.relu, nn.Dense(8)]
    run = analyze(nn.Sequential(layers), jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32))
    assert run.second_moment.mean[-1, 0] == pytest.approx(0.5, rel=1e-3)


def test_the_largest_of_a_window() -> None:
    windows = (((1.3, 1.0, 0.6, 1.0),), (1.0,))
    pooled = Pooled(RELU, 0.1, 1.0, 0.6, 0.4, windows)
    rng = np.random.default_rng(0)
    common = rng.normal(size=(200_000, 2)) @ np.linalg.cholesky([[0.6, 0.3], [0.3, 0.6]]).T
    z = (common[:, :, None] + math.sqrt(0.4) * rng.normal(size=(200_000, 2, 4))) * windows[0][0]
    top = np.maximum(0.1 + z.max(axis=-1), 0)

    def agree(mean: float, second: float, shared: float) -> bool:
        drawn = [top[:, 0], top[:, 0] ** 2, np.prod(top - top.mean(), axis=1)]
        errors = [
            abs(v.mean() - e) / (v.std() / math.sqrt(len(v)))
            for v, e in zip(drawn, (mean, second, shared), strict=True)
        ]
        return max(errors) < 5

    assert agree(pooled.mean, pooled.second, float(pooled.covariances(np.array(0.3))))
    flat = Pooled(RELU, 0.1, 1.0, 0.6, 0.4, (((1.0,) * 4,), (1.0,)))  # twin
    assert not agree(flat.mean, flat.second, float(flat.covariances(np.array(0.3))))
    mean, variance = largest(4)
    plain = Pooled(IDENTITY, 0.0, 1.0, 0.6, 0.4, (((1.0,) * 4,), (1.0,)))
    assert plain.mean == pytest.approx(mean * math.sqrt(0.4), rel=2e-3)
    assert plain.second - plain.mean**2 == pytest.approx(0.6 + variance * 0.4, rel=2e-3)


def test_slices_of_one_array_share_what_its_entries_do() -> None:
    """An image padded with itself is as alike as it was: of 6 positions, 30 pairs, and 2 more entries drawn of them."""
    relu = Applied(RELU, exchangeable((6, 40), 1.7, 0.3))
    ends = [relu.on(part(relu.argument, 0, (k, 1), 1)) for k in (5, 0)]
    (joined,) = equation(
        jax.make_jaxpr(lambda a, b, c: jnp.concatenate([a, b, c]))(
            *map(jnp.zeros, ((1, 40), (6, 40), (1, 40)))
        ).eqns[0],
        [ends[0], relu, ends[1]],
        None,
    )
    table, whole = (v.moments(v.axes[0]) for v in map(settle, (joined, relu)))
    assert table == pytest.approx(whole, rel=1e-6)
    assert covariance(*map(settle, ends), ()) < covariance(settle(relu), settle(relu), relu.axes[0])[0] * 1.01
    # Twin: slices that have nothing in common.
    others = [part(exchangeable((6, 40), 1.7, 0.3), 0, (k, 1), 1) for k in (5, 0)]
    apart = [others[0], relu.argument, others[1]]
    assert concatenated(apart, 0).table()[0, 1] < 0.8 * 1.7 * 0.3
    near = white((8, 40))
    near.axes[0][0].near = 0.4
    assert [part(near, 0, (0, k), 4).axes[0][0].near for k in (1, 2)] == pytest.approx([0.4, 0.16])


class Pools(nn.Module):
    pool: Any = nn.max_pool

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for _ in range(2):
            x = self.pool(nn.relu(nn.Conv(24, (3, 3))(nn.relu(nn.Conv(24, (3, 3))(x)))), (2, 2), (2, 2))
        return nn.Dense(4)(x.reshape(x.shape[0], -1))


def test_small_images_with_pooling_against_monte_carlo() -> None:
    """Of smooth images, whose neighbours are alike; within 10 %, and pooling of another kind is not."""
    x = np.random.default_rng(0).normal(size=(4, 10, 10, 3))
    x = sum(x[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)).astype("f4") / 3
    run = probe(Pools(), x, seeds=96, sites="ops", backward=False, record=("second_moment",), devices=1)
    seen, stderr = (np.asarray(v).mean(axis=1) for v in (run.second_moment.mean, run.second_moment.stderr))
    found = analyze(Pools(), x).second_moment.mean[:, 0]
    assert (np.abs(found - seen) <= 5 * stderr + 0.1 * seen).all(), found / seen
    wrong = analyze(Pools(nn.avg_pool), x).second_moment.mean[:, 0]
    assert not (np.abs(wrong - seen) <= 5 * stderr + 0.1 * seen).all()


def test_pooling_windows_that_are_not_alike_are_measured() -> None:
    model = nn.Sequential([nn.Conv(4, (3, 3)), lambda x: nn.max_pool(x, (2, 2), (2, 2)), nn.Conv(4, (3, 3))])
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("f4")
    first, second = calibrate(model, x, KEY, method="analytic")[1]
    assert first.why == "" and second.status == "converged"
    assert "measured" in second.why and "pooling window" in second.why
