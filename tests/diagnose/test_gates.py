"""Nonlinearities behind sums and parts, and what recurrent cells do over their steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinit.diagnose import diagnose
from jaxinit.probe import watch
from jaxinit.records import ParameterStatistics, Propagation, Site, Statistic

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5)).astype("f4")
#: Two gates of four units each; those of the second see ten times as much.
PARAMS = {
    "cell": {
        "a": RNG.normal(size=(5, 8)).astype("f4") * np.repeat([1.0, 10.0], 4).astype("f4"),
        "b": RNG.normal(size=(5, 8)).astype("f4"),
    },
    "seen": {"kernel": RNG.normal(size=(5, 8)).astype("f4")},
    "last": {"kernel": RNG.normal(size=(4, 4)).astype("f4") * 10},
}


def apply(params, x):
    a, b = (x @ params["cell"][name] for name in "ab")
    update, new = jnp.split(a + b, 2, axis=-1)
    u = jax.nn.sigmoid(update)
    h = (1 - u) * jnp.tanh(new) + u * x[:, :4]
    seen = x @ params["seen"]["kernel"]
    h = h + jnp.tanh(seen)[:, :4] + seen[:, :4]
    return jnp.tanh(h + h @ params["last"]["kernel"])


@pytest.fixture(scope="module")
def looked():
    return watch((lambda key: PARAMS, apply), PARAMS, X, loss=lambda out: jnp.mean(out**2))


@pytest.fixture(scope="module")
def measured(looked):
    return looked.record(jax.jit(looked)(PARAMS, X))


def flat(z):
    """The share of units where tanh is flat: |tanh'| < 0.01."""
    return np.mean(1 - np.tanh(z.astype(float)) ** 2 < 1e-2)


def test_sites_speak_of_the_gates_that_they_feed(measured):
    """Of a sum, of the worst of two parts, and of u that is used as u and as 1 - u."""
    a, b = (X @ PARAMS["cell"][name] for name in "ab")
    update, new = np.split(a + b, 2, axis=-1)
    u = 1 / (1 + np.exp(-update.astype(float)))
    share = max(flat(new), np.mean(u * (1 - u) < 0.25e-2))
    assert share > 0.5 > flat(b)  # alone, the second product is far from flat
    for site in ("cell/a", "cell/b"):
        i = measured.sites.index(site)
        assert measured.layout[i].activation
        assert measured.saturated_fraction.mean[i] == pytest.approx(share, abs=1e-6)
        assert measured.dead_fraction.mean[i] == measured.zero_fraction.mean[i] == 0


def test_what_is_seen_by_others_is_no_pre_activation(measured):
    i = measured.sites.index("seen")
    assert not measured.layout[i].activation and np.isnan(measured.saturated_fraction.mean[i])


def test_the_end_of_a_residual_block_is_seen(measured):
    """tanh(h + W h): the branch's site speaks of the sum."""
    p = jax.tree.map(lambda v: v.astype(float), PARAMS)
    a = X @ p["cell"]["a"] + X @ p["cell"]["b"]
    u = 1 / (1 + np.exp(-a[:, :4]))
    seen = (X @ p["seen"]["kernel"])[:, :4]
    h = (1 - u) * np.tanh(a[:, 4:]) + u * X[:, :4] + np.tanh(seen) + seen
    i = measured.sites.index("last")
    assert measured.saturated_fraction.mean[i] == pytest.approx(flat(h + h @ p["last"]["kernel"]), abs=1e-6)


def test_it_lowers_for_accelerators(looked):
    jax.jit(looked).trace(PARAMS, X).lower(lowering_platforms=("cuda", "tpu"))


# ---- what diagnose makes of it ------------------------------------------------------------------------------

STEPS, SEEDS = 12, 8


def shares(saturated, zero):
    """A record of ten layers whose units are flat, or zero, in these shares."""
    noise = 1e-3 * np.random.default_rng(1).standard_normal((SEEDS, 10))
    return Propagation(
        "simulation", tuple(str(n) for n in range(1, 11)), 1,
        saturated_fraction=Statistic.of(saturated + noise), zero_fraction=Statistic.of(zero + noise),
        config={"widths": [64] * 10},
    )  # fmt: skip


def test_flat_units_that_are_not_zero_are_saturated():
    (found,) = diagnose(shares(0.7, 0.0))
    assert (found.kind, found.severity, found.threshold) == ("saturated_units", "warning", 0.5)
    assert diagnose(shares(0.7, 0.5)).ok  # a ReLU with negative biases
    assert diagnose(shares(0.5, 0.0)).ok  # one flat side, as GELU's at a large scale


def recurrent(signal=0.0, gradient=0.0, silent=0, cells=1, stacked=False):
    """A record of cells with `hi` and an output, whose logs change so much a step; `silent` first steps of `hi`."""
    names, layout, forward, backward = [], [], [], []
    for c in range(cells):
        for t in range(STEPS):
            for part, kind in (("/hi", "Dense"), ("", "Cell")):
                names.append(f"cell_{c}[{t}]{part}")
                where = f"cell_{c}[{t}]" if stacked else f"cell_{c}"
                layout.append(
                    Site(
                        names[-1],
                        "output",
                        kind,
                        f"cell_{c}{part}",
                        (8, 16),
                        "float32",
                        0,
                        (f"{where}/hi/kernel",) if part else (),
                        loops=(STEPS,),
                        container=not part,
                    )
                )
                forward.append(-np.inf if part and t < silent else signal * t)
                backward.append(gradient * (STEPS - 1 - t))
    noise = 0.02 * np.random.default_rng(2).standard_normal((2, SEEDS, len(names), 1))
    parameters = tuple(dict.fromkeys(site.parameters[0] for site in layout if site.parameters))
    norms = Statistic.of(np.ones((SEEDS, len(parameters))))
    return Propagation(
        "probe", tuple(names), 1, layout=tuple(layout), pooled=8,
        log_second_moment=Statistic.of(np.array(forward)[None, :, None] + noise[0]),
        log_grad_second_moment=Statistic.of(np.array(backward)[None, :, None] + noise[1]),
        parameters=ParameterStatistics(parameters, ((16, 16),) * len(parameters), norms, norms),
    )  # fmt: skip


def test_a_gradient_that_explodes_over_steps_is_found_in_every_cell():
    """Whose sites, one cell after the other, make a saw."""
    found = diagnose(recurrent(gradient=1.5, cells=2))
    first = found.worst(1)[0]
    assert (first.kind, first.severity) == ("exploding_gradient", "error")
    assert "a step over 12 steps of cell_" in first.what and "orthogonal" in first.remedy
    assert first.evidence["factor_a_layer"] == pytest.approx(np.exp(1.5), rel=0.05)


def test_what_a_cell_forgets_is_a_note():
    found = diagnose(recurrent(gradient=-1.5, signal=-1.0))
    assert found.ok and {f.kind for f in found} == {"vanishing_signal", "vanishing_gradient"}
    # the same over layers, each with its own parameters, is a fault
    assert not diagnose(recurrent(gradient=-1.5, signal=-1.0, stacked=True)).ok


def test_a_hidden_state_may_start_at_zero():
    assert not diagnose(recurrent(silent=1)).findings
    found = diagnose(recurrent(silent=STEPS))
    assert {f.kind for f in found} == {"silent_branch"}


def test_gradients_are_looked_for_although_the_state_starts_at_zero():
    """A part that no step's gradient reaches is named; one that misses some of its steps is not."""
    run, none = recurrent(silent=1), np.zeros(2 * STEPS, bool)
    for cut, word in ((slice(0, 4), "alive"), (slice(0, 2 * STEPS, 2), "partly cut off")):
        mask = none.copy()
        mask[cut] = True
        samples = np.where(mask[None, :, None], -np.inf, np.zeros((SEEDS, 2 * STEPS, 1)))
        broken = dataclasses.replace(run, log_grad_second_moment=Statistic.of(samples))
        assert diagnose(broken).word == word
