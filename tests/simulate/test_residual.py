"""Skips, normalization and dropout: against networks written out, by law between samplers, far ranges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forgetful import forgotten_projections
from laws import other_law, same_law

import jaxinit as ji
from jaxinit._core.normals import vector
from jaxinit.network import Residual

KINDS = {
    "pre": {"residual": Residual(0.8, 0.6), "input_width": 5},
    "post": {"residual": Residual(0.8, 0.6, order="post"), "width": [8, 8, 8, 6]},
    "layer norm": {"norm": "layer", "width": [8, 7, 8, 6]},
    "pre, rms norm": {"norm": "rms", "residual": Residual(1.0, 0.7)},
    "post, layer norm": {"norm": "layer", "residual": Residual(0.9, 0.7, order="post")},
}
SEEDS = 4000
RECORD = ["second_moment", "correlation", "grad_second_moment", "grad_correlation", "weight_grad_norm"]


def network(**changes: object) -> ji.Network:
    given = {"depth": 4, "width": 8, "activation": "gelu", "input_width": 8, **changes}
    if "initializer" not in given:
        given.setdefault("weight_variance", 1.5)
    return ji.Network(**given)  # type: ignore[arg-type]


def written_out(net: ji.Network, x: jax.Array, weights: list, probes: list) -> tuple[jax.Array, list]:
    """f(x) by the equations of the docstrings, and every z."""
    skip = net.residual or Residual(0.0, 1.0)
    order = None if net.residual is None else net.residual.order

    def phi(z: jax.Array) -> jax.Array:
        if net.norm == "layer":
            z = z - z.mean(1, keepdims=True)
        if net.norm is not None:
            z = z / jnp.sqrt(jnp.mean(z**2, 1, keepdims=True))
        return jax.nn.gelu(z, approximate=False)

    h, zs = x, []
    for l, (w, p) in enumerate(zip(weights, probes, strict=True)):
        z = h @ w
        if order == "pre" and l:
            z = skip.alpha * zs[-1] + skip.beta * z
        z = z + p
        zs.append(z)
        if order == "post" and 0 < l < len(weights) - 1:
            h = skip.alpha * h + skip.beta * phi(z)
        else:
            h = phi(z)
    return zs[-1], zs


@pytest.mark.parametrize("kind", KINDS)
def test_against_a_network_written_out(kind: str) -> None:
    def recording(key: jax.Array, shape: tuple[int, ...], dtype: object = jnp.float32) -> jax.Array:
        return jax.random.normal(key, shape, jnp.float32) * jnp.sqrt(jnp.float32(2.0 / shape[0]))

    net = network(initializer=recording, **KINDS[kind])
    x = np.random.default_rng(0).normal(size=(3, net.shapes[0][0])).astype(np.float32)
    run = ji.simulate(net, [5], x=x, keep_seeds=True, record=RECORD)
    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 5)
    keys = jax.random.split(key, (5, 4))
    weights = [recording(keys[l + 1, 0], s) for l, s in enumerate(net.shapes)]
    r = vector(keys[0, 1], net.widths[-1]) / jnp.sqrt(jnp.float32(net.widths[-1]))

    def loss(weights: list, probes: list) -> tuple[jax.Array, list]:
        f, zs = written_out(net, jnp.asarray(x), weights, probes)
        return jnp.sum(f * r[None, :]), zs

    probes = [jnp.zeros((3, n)) for n in net.widths]
    (dw, dz), zs = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(weights, probes)
    for l in range(4):
        z, d = np.asarray(zs[l], np.float64), np.asarray(dz[l], np.float64)
        unit = d / np.linalg.norm(d, axis=1, keepdims=True)
        want = {
            "second_moment": (z**2).mean(1),
            "grad_second_moment": (d**2).mean(1),
            "grad_correlation": [unit[a] @ unit[b] for a, b in run.pairs],
            "weight_grad_norm": float(np.linalg.norm(dw[l])),
        }
        for name, value in want.items():
            np.testing.assert_allclose(run[name].samples[0, l], value, rtol=3e-4, atol=1e-5, err_msg=name)


def samples(run: ji.Propagation) -> dict[str, np.ndarray]:
    out = {}
    for name, stat in run.statistics():
        flat = stat.samples.reshape(stat.count, len(run.sites), -1)
        out |= {f"{name} {site}": flat[:, site, 0] for site in (1, -1)}
    out["forward x backward"] = run.second_moment.samples[:, -1, 0] * run.grad_second_moment.samples[:, 0, 0]
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [{"dropout": 0.3, "residual": Residual(0.8, 0.6)}, KINDS["post, layer norm"], KINDS["pre, rms norm"]],
)
def test_implicit_and_materialized_have_one_law(kind: dict) -> None:
    """The twins: another branch, and a backward pass that forgets what the forward one saw."""

    def found(kind: dict, sampler: str, start: int = 0, batch: int = 100) -> dict[str, np.ndarray]:
        seeds = np.arange(SEEDS) + start
        return samples(
            ji.simulate(network(**kind), seeds, sampler=sampler, keep_seeds=True, batch=batch, record=RECORD)
        )

    implicit, drawn = found(kind, "implicit"), found(kind, "materialized", SEEDS)
    same_law(implicit, drawn)
    other = {**kind, "residual": Residual(0.8, 0.75, (kind["residual"]).order)}
    other_law(found(other, "implicit"), drawn)
    with forgotten_projections():
        forgetful = found(kind, "implicit", batch=99)
    forward = [n for n in drawn if n.startswith("second")]
    same_law({n: forgetful[n] for n in forward}, {n: drawn[n] for n in forward})
    other_law(forgetful, drawn)


def test_dropout_scales_and_masks_inputs_apart() -> None:
    """A linear layer with dropout p has E[h^2] = E[z^2] / (1 - p), and equal inputs part: c = 1 - p."""
    net = ji.Network(2, 4096, "identity", weight_variance=1.0, dropout=0.25)
    run = ji.simulate(net, 64, correlation=1.0, record=["second_moment", "correlation", "grad_second_moment"])
    for found, want in (
        (run.second_moment.mean[1, 0], 1 / 0.75), (run.correlation.mean[1, 0], 0.75),
        (run.grad_second_moment.mean[0, 0] * 4096, 1 / 0.75),
    ):  # fmt: skip
        assert abs(found - want) < 5 * 2 / np.sqrt(64 * 4096)


def test_a_deep_residual_network_neither_overflows_nor_underflows() -> None:
    """A linear stream with alpha = 0.5 and a dead branch halves for ever: forward and backward."""
    for order in ("pre", "post"):
        net = ji.Network(3000, 16, "identity", weight_variance=1.0, residual=Residual(0.5, 0.0, order=order))
        run = ji.simulate(net, 1, record=["log_second_moment", "log_grad_second_moment"])
        logs = run.log_second_moment.mean[:, 0]
        np.testing.assert_allclose(logs[2990] - logs[10], -2980 * np.log(4), rtol=2e-3)
        if order == "pre":
            back = run.log_grad_second_moment.mean[:, 0]
            np.testing.assert_allclose(back[10] - back[2990], -2980 * np.log(4), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"residual": True}, TypeError, "Residual"),
        ({"residual": Residual(), "width": [8, 9, 8, 8]}, ValueError, "same for every layer"),
        ({"residual": Residual(order="post"), "width": [8, 9, 8, 8]}, ValueError, "all layers but the last"),
        ({"norm": "batch"}, ValueError, "'layer' or 'rms'"),
        ({"dropout": 1.0}, ValueError, "less than 1"),
    ],
)
def test_bad_network(change: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        network(**change)


def test_bad_residual() -> None:
    with pytest.raises(ValueError, match="alpha"):
        Residual(-1.0)
    with pytest.raises(ValueError, match="'pre' or 'post'"):
        Residual(order="after")
