"""Convolutional networks: against `lax.conv`, by law between samplers, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forgetful import forgotten_projections
from laws import other_law, same_law

import jaxinit as ji
from jaxinit._core.normals import vector
from jaxinit.ensemble import _compiled
from jaxinit.network import Residual, Spatial
from jaxinit.records import STATISTICS
from jaxinit.simulate import _simulate

SEEDS = 2000
RECORD = [
    "second_moment", "mean", "correlation", "grad_second_moment", "grad_correlation", "weight_grad_norm",
]  # fmt: skip
LINE = Spatial(5, 3)
SHEET = Spatial((3, 4), (3, 1), "zero")
TORUS = Spatial((3, 2), (3, 3))  # of which a kernel sees some places twice


def network(**changes: object) -> ji.Network:
    given = {"depth": 3, "width": 6, "activation": "tanh", "spatial": LINE, "input_width": 4, **changes}
    if "initializer" not in given:
        given.setdefault("weight_variance", 1.5)
    return ji.Network(**given)  # type: ignore[arg-type]


def kernel(key: jax.Array, shape: tuple[int, ...], dtype: object = jnp.float32) -> jax.Array:
    fan_in = np.prod(shape[:-1])
    return jax.random.normal(key, shape, jnp.float32) * jnp.sqrt(jnp.float32(2.0 / fan_in))


def conv(h: jax.Array, w: jax.Array, spatial: Spatial) -> jax.Array:
    """By XLA's own convolution, h (inputs, *places, channels)."""
    border = [(k // 2, k // 2) for k in spatial.kernel]
    if spatial.padding == "circular":
        h, border = jnp.pad(h, [(0, 0), *border, (0, 0)], mode="wrap"), [(0, 0)] * len(border)
    letters = "HW"[: len(border)]
    names = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return jax.lax.conv_general_dilated(h, w, (1,) * len(border), border, dimension_numbers=names)


@pytest.mark.parametrize(
    "changes",
    [{"spatial": SHEET, "residual": Residual(0.8, 0.6)},
     {"spatial": Spatial((2, 3), (5, 3)), "width": [6, 7, 5], "norm": "layer"}],
    ids=["sheet, zeros, skips", "kernel beyond the sheet, norm, widths vary"],
)  # fmt: skip
def test_against_a_network_written_out(changes: dict) -> None:
    net = network(initializer=kernel, **changes)
    spatial, skip = net.spatial, net.residual
    assert spatial is not None
    x = np.random.default_rng(0).normal(size=(3, *spatial.shape, 4)).astype(np.float32)
    run = ji.simulate(net, [5], x=x, keep_seeds=True, record=[*RECORD, "update_ratio"])
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 5), (4, 4))
    weights = [kernel(keys[l + 1, 0], (*spatial.kernel, *s)) for l, s in enumerate(net.shapes)]
    outputs = net.widths[-1] * spatial.places
    r = vector(keys[0, 1], outputs) / jnp.sqrt(jnp.float32(outputs))

    def phi(z: jax.Array) -> jax.Array:
        if net.norm is not None:
            flat = z.reshape(3, -1)
            z = ((flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)).reshape(z.shape)
        return jnp.tanh(z)

    def loss(weights: list, probes: list) -> tuple[jax.Array, list]:
        zs: list = []
        for l, (w, p) in enumerate(zip(weights, probes, strict=True)):
            z = conv(phi(zs[-1]) if l else jnp.asarray(x), w, spatial)
            if skip is not None and l:
                z = skip.alpha * zs[-1] + skip.beta * z
            zs.append(z + p)
        return jnp.sum(zs[-1].reshape(3, -1) * r[None, :]), zs

    probes = [jnp.zeros((3, *spatial.shape, n)) for n in net.widths]
    (dw, dz), zs = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(weights, probes)
    for l in range(3):
        z, d = (np.asarray(v[l], np.float64).reshape(3, -1) for v in (zs, dz))
        unit, back = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (z, d))
        norm = np.linalg.norm(np.ravel(dw[l]))
        want = {
            "second_moment": (z**2).mean(1), "mean": z.mean(1),
            "correlation": [unit[a] @ unit[b] for a, b in run.pairs],
            "grad_second_moment": (d**2).mean(1),
            "grad_correlation": [back[a] @ back[b] for a, b in run.pairs],
            "weight_grad_norm": norm, "update_ratio": norm / np.linalg.norm(np.ravel(weights[l])),
        }  # fmt: skip
        for name, value in want.items():
            np.testing.assert_allclose(run[name].samples[0, l], value, rtol=3e-4, atol=1e-5, err_msg=name)


def samples(net: ji.Network, sampler: str, start: int = 0, batch: int = 4) -> dict[str, np.ndarray]:
    """Per-seed figures of the first and last layer, and products that tie the passes together."""
    run = ji.simulate(
        net,
        np.arange(SEEDS) + start,
        correlation=0.3,
        sampler=sampler,
        keep_seeds=True,
        batch=batch,
        record=RECORD,
    )
    assert run.config["sampler"].startswith(sampler)
    out = {}
    for name, stat in run.statistics():
        flat = stat.samples.reshape(stat.count, len(run.sites), -1)
        out |= {f"{name} {site}": flat[:, site, 0] for site in (0, -1)}
    forward, backward = run.second_moment.samples, run.grad_second_moment.samples
    out["forward x backward"] = forward[:, -1, 0] * backward[:, 0, 0]
    out["dW x forward"] = run.weight_grad_norm.samples[:, 0] * forward[:, 0, 1]
    return out


def within(a: dict, b: dict) -> float:
    """The largest difference of means, in standard errors; figures that do not vary have none."""
    far = []
    for name in a:
        error = np.sqrt(a[name].var() / len(a[name]) + b[name].var() / len(b[name]))
        far.append(abs(a[name].mean() - b[name].mean()) / (error + 1e-6))
    return max(far)


DELTA = {"ensemble": "orthogonal", "width": 10, "input_width": 10}
KINDS = {
    "line": ({"weight_variance": 2.0, "bias_variance": 0.3}, {}),
    "torus": ({"spatial": TORUS, "weight_variance": 2.0, "bias_variance": 0.3}, {}),
    "delta-orthogonal": (DELTA, {"weight_variance": None, "initializer": ji.delta_orthogonal(1.5**0.5),
                                 "ensemble": "gaussian"}),
    "sheet, zeros": ({"spatial": SHEET, "activation": "relu", "weight_variance": 2.0}, {}),
}  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] if k in ("line", "sheet, zeros") else []) for k in KINDS],
)
def test_implicit_and_materialized_have_one_law(kind: str) -> None:
    """Also where there are more patches than entries in one; the delta-orthogonal kernels of `initializers` too.

    The twins, another weight variance, a backward pass that forgets what the forward one saw, and no zeros beyond the
    border, are seen.
    """
    given, same = KINDS[kind]
    found = (
        samples(network(**given), "implicit"),
        samples(network(**{**given, **same}), "materialized", SEEDS),
    )
    same_law(*found)
    assert within(*found) < 5
    other = samples(network(**{**given, "weight_variance": 2.5}), "implicit")
    other_law(found[1], other)
    assert within(found[1], other) > 10
    if kind != "delta-orthogonal":  # whose matrix the forward pass has seen whole
        with forgotten_projections():
            forgetful = samples(network(**given), "implicit", batch=5)
        forward = [n for n in other if n.startswith("second")]
        same_law({n: forgetful[n] for n in forward}, {n: found[1][n] for n in forward})
        other_law(forgetful, found[1])
    if kind == "sheet, zeros":
        around = Spatial(SHEET.shape, SHEET.kernel, "circular")
        other_law(found[1], samples(network(**{**given, "spatial": around}), "implicit"))


def test_delta_orthogonal_keeps_lengths_and_angles() -> None:
    linear = network(**{**DELTA, "depth": 20, "activation": "identity", "weight_variance": 1.0})
    run = ji.simulate(linear, 2, record=["second_moment", "correlation"])
    np.testing.assert_allclose(run.second_moment.mean, 1.0, rtol=1e-5)
    np.testing.assert_allclose(run.correlation.mean, 0.5, rtol=1e-5)
    assert run.config["sampler"] == "materialized (delta-orthogonal)"


def test_samplers_are_chosen_by_the_patches() -> None:
    def chosen(places: int, **more: object) -> tuple[str, str, tuple[int, int]]:
        net = network(**{"width": 64, "input_width": 64, "spatial": Spatial(places), **more})
        found = _simulate._weights(net, net.shapes[0], "auto", False, 2)
        return found.sampler, found.law, found.shape

    assert chosen(4) == ("implicit", "gaussian", (192, 64))
    assert chosen(8)[0] == "materialized"
    assert chosen(64) == ("materialized", "gaussian", (192, 64))
    assert chosen(66, width=1024, input_width=1024)[0] == "materialized"  # more columns than 128: by LAPACK
    assert chosen(66, width=2112, input_width=2112)[0] == "implicit"
    assert chosen(4, ensemble="orthogonal") == ("implicit", "delta-orthogonal", (64, 64))
    assert chosen(4, initializer=ji.he_normal(distribution="normal")) == ("implicit", "gaussian", (192, 64))
    assert chosen(4, initializer=ji.he_normal()) == ("materialized", "iid", (192, 64))


def test_lowers_for_accelerators() -> None:
    for kind, sampler in (("line", "implicit"), ("sheet, zeros", "materialized")):
        net = network(**KINDS[kind][0])
        weights = tuple(_simulate._weights(net, s, sampler, False, 2) for s in net.shapes)
        program = _simulate._program(net, weights, _simulate._wanted([*STATISTICS], True, 2))
        data = (net, _simulate._inputs(net, 1.0, 0.5, None))
        traced = _compiled.jitted(_compiled.chunk, "cpu").trace(
            jnp.arange(4, dtype=jnp.uint32), jnp.uint32(0), data, program, 2, True
        )
        assert traced.lower(lowering_platforms=("cuda", "tpu"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"shape": (2, 2, 2)}, ValueError, "one or two axes"),
        ({"shape": 0}, ValueError, r"Spatial\(shape=...\)` must be an integer of at least 1"),
        ({"shape": "32"}, TypeError, "sequence of integers"),
        ({"kernel": 2}, ValueError, "odd width"),
        ({"kernel": (3, 3)}, ValueError, "or 1 of them"),
        ({"padding": "same"}, ValueError, "'circular' or 'zero'"),
    ],
)
def test_bad_places(changes: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        Spatial(**{"shape": 5, **changes})


def test_bad_calls() -> None:
    with pytest.raises(TypeError, match="Spatial or None"):
        network(spatial=(32, 32))
    with pytest.raises(ValueError, match=r"of shape \(inputs, 5, input_width\) with input_width = 4"):
        ji.simulate(network(), 1, x=np.ones((2, 20)))
    with pytest.raises(ValueError, match="False for networks with places"):
        ji.simulate(network(), 1, jacobian=True)
    with pytest.raises(ValueError, match="fully connected"):
        ji.simulate(network(), 1, sampler="radial", x=np.ones((1, 5, 4)))
    for theory in (
        ji.meanfield.propagate,
        ji.meanfield.finite_width,
        lambda n: ji.meanfield.kernels(n, np.ones(4)),
    ):
        with pytest.raises(ValueError, match="meanfield.convolution"):
            theory(network(activation="relu", weight_variance=2.0))
