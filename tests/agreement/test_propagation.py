"""Theory against simulation: two programs that share no numerics, one prediction.

Infinite width against width n: every figure must agree within 5 standard errors plus a bias of BIAS L / n of its
size (finite-width corrections of canonical networks are of order L / n: Hanin & Nica 2020), both fixed beforehand.
"""

import dataclasses

import numpy as np
import pytest

import jaxinit as ji
from jaxinit.network import Residual

NAMES = ["second_moment", "correlation", "grad_second_moment", "grad_correlation"]
DEPTH, WIDTH, SEEDS = 8, 4096, 64
BIAS = 4.0

#: Activation -> (sigma_w^2, sigma_b^2) in the ordered phase, on the edge of chaos and in the chaotic phase. The
#: homogeneous ones have no chaotic phase at finite length: theirs is an exploding point, where angles still shrink.
POINTS = {
    "relu": [(1.2, 0.1), (2.0, 0.0), (2.6, 0.1)],
    "leaky_relu": [(1.2, 0.1), (2 / 1.0001, 0.0), (2.6, 0.1)],
    "tanh": [(0.9, 0.1), (1.76095, 0.05), (3.0, 0.1)],
    "erf": [(0.7, 0.1), (1.37584, 0.05), (3.0, 0.1)],
    "hard_tanh": [(0.9, 0.1), (1.5, 0.05), (3.0, 0.1)],
    "gelu": [(1.2, 0.1), (1.98, 0.16), (2.1, 0.2)],
}
CASES = [(name, *point) for name, points in POINTS.items() for point in points]


def simulated(network: ji.Network, seeds: int = SEEDS, **more: object) -> ji.Propagation:
    return ji.simulate(network, seeds, sampler="implicit", record=NAMES, **more)  # type: ignore[arg-type]


def misses(run: ji.Propagation, theory: ji.Propagation, width: int) -> np.ndarray:
    """How far apart, in units of the tolerance: above 1 they disagree. nan never agrees."""
    out = []
    for name in NAMES:
        found, want = run[name], theory[name].mean
        size = np.ones_like(want) if "correlation" in name else np.abs(want)
        out.append(
            (np.abs(found.mean - want) / (5 * found.stderr + BIAS * DEPTH / width * size + 1e-6)).max()
        )
    return np.asarray(out)


@pytest.mark.parametrize("name", POINTS)
def test_width_4096(name: str) -> None:
    """One compiled program an activation: points differ in numbers only."""
    for sw2, sb2 in POINTS[name]:
        network = ji.Network(DEPTH, WIDTH, name, weight_variance=sw2, bias_variance=np.float32(sb2))
        run, theory = simulated(network), ji.meanfield.propagate(network)
        assert misses(run, theory, WIDTH).max() < 1, (sw2, sb2, misses(run, theory, WIDTH))


SPECIAL = {
    "orthogonal": {"activation": "tanh", "weight_variance": 1.5, "bias_variance": 0.1, "ensemble": "orthogonal"},
    "pre": {"activation": "tanh", "weight_variance": 1.5, "bias_variance": 0.1, "residual": Residual(0.9, 0.5)},
    "post": {"activation": "relu", "weight_variance": 1.8, "bias_variance": 0.1,
             "residual": Residual(0.9, 0.5, order="post")},
    "layer norm": {"activation": "gelu", "weight_variance": 1.5, "bias_variance": 0.1, "norm": "layer"},
    "pre, rms norm": {"activation": "relu", "weight_variance": 1.5, "norm": "rms", "residual": Residual(1.0, 0.7)},
    "dropout": {"activation": "tanh", "weight_variance": 1.5, "bias_variance": 0.1, "dropout": 0.2},
    "post, layer norm, dropout": {"activation": "tanh", "weight_variance": 1.5, "norm": "layer", "dropout": 0.2,
                                  "residual": Residual(0.8, 0.7, order="post")},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECIAL)
def test_other_networks_of_width_4096(kind: str) -> None:
    network = ji.Network(DEPTH, WIDTH, **SPECIAL[kind])
    found = misses(simulated(network), ji.meanfield.propagate(network), WIDTH)
    assert found.max() < 1, dict(zip(NAMES, found, strict=True))


def test_twins_wrong_theories_are_seen() -> None:
    """Another weight variance, skips left out, a chi at the wrong length: each must miss."""
    network = ji.Network(DEPTH, WIDTH, "tanh", weight_variance=3.0, bias_variance=np.float32(0.1))
    run, theory = simulated(network), ji.meanfield.propagate(network)
    assert misses(run, theory, WIDTH).max() < 1
    for sw2, seen in ((3.1, 1), (3.6, 4)):
        other = ji.meanfield.propagate(dataclasses.replace(network, weight_variance=sw2))
        assert (misses(run, other, WIDTH) > 1).sum() >= seen
    linear = ji.meanfield.propagate(ji.Network(DEPTH, WIDTH, "identity", weight_variance=3.0))  # no phi'
    swapped = dataclasses.replace(theory, grad_second_moment=linear.grad_second_moment)
    assert misses(run, swapped, WIDTH)[NAMES.index("grad_second_moment")] > 10
    skips = dataclasses.replace(network, residual=Residual(0.5, 1.0))
    assert misses(run, ji.meanfield.propagate(skips), WIDTH).min() > 1


@pytest.mark.optimized  # draws for longer than it compiles
@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"ensemble": "orthogonal"},
        {"residual": Residual(0.9, 0.5)},
        {"norm": "layer"},
        {"activation": "leaky_relu", "weight_variance": 2 / 1.0001, "bias_variance": 0.0},
        {"activation": "gelu", "weight_variance": 1.2},
    ],
    ids=["plain", "orthogonal", "residual", "layer norm", "leaky relu, edge", "gelu, ordered"],
)
def test_the_difference_falls_as_one_over_width(more: dict) -> None:
    """n (simulation - theory) is the same number at every width, within its noise: relative for second moments, whose
    mean hardly depends on width, absolute for their logarithms, whose mean does.

    Twin: a difference that fell as 1 / sqrt(n) from where it is at the least width would be seen.
    """
    widths, seeds = (16, 64, 256), (60_000, 30_000, 30_000)
    if more:
        widths, seeds = widths[::2], seeds[::2]
    places = {
        "second_moment": 3,
        "grad_second_moment": 0,
        "log_second_moment": 3,
        "log_grad_second_moment": 0,
    }
    scaled, errors = [], []
    for n, count in zip(widths, seeds, strict=True):
        given = {"activation": "tanh", "weight_variance": 2.0, "bias_variance": 0.1, **more}
        network = ji.Network(4, n, **given)
        run = ji.simulate(network, count, record=list(places))
        theory = ji.meanfield.propagate(network)
        rows = [(run[k], theory[k].mean[site, 0], k, site) for k, site in places.items()]
        size = [1.0 if "log" in k else abs(want) for _, want, k, _ in rows]
        scaled.append(
            [n * (s.mean[site].mean() - v) / one for (s, v, _, site), one in zip(rows, size, strict=True)]
        )
        errors.append(
            [n * s.stderr[site].max() / one for (s, _, _, site), one in zip(rows, size, strict=True)]
        )
    scaled, errors = np.asarray(scaled), np.asarray(errors)
    # The next order, c2 / n, is at most a few at n = 16 where the first is of order one.
    slack = 5 * np.hypot(errors[0], errors[1:]) + 3 * np.maximum(1, np.abs(scaled[0])) * 4 / widths[0]
    assert (np.abs(scaled[1:] - scaled[0]) < slack).all(), (scaled, errors)
    assert (np.abs(scaled) < 4 * 4).all(), scaled
    slower = scaled[0] * np.sqrt(widths[-1] / widths[0])
    assert (np.abs(slower - scaled[0]) > slack[-1]).any(), (scaled, slack)
