"""What is beyond a threshold but not surely: it is said, as likely, and with how many seeds would tell."""

import math

import numpy as np
import pytest

from jaxinit.diagnose import diagnose, marks, thresholds
from jaxinit.diagnose._certainty import more_seeds
from jaxinit.records import Propagation, Site, Statistic

L = 30
SITES = tuple(str(n) for n in range(1, L + 1))
DECADE = math.log(10.0)


def made(logs, widths=None, **more):
    """A simulation with these logs of second moments, (seeds, sites)."""
    logs = np.asarray(logs)[:, :, None]
    config = {"widths": widths or [256] * logs.shape[1], "activation": "relu"}
    return Propagation(
        "simulation", SITES[: logs.shape[1]], 1, ((0, 1),), log_second_moment=Statistic.of(logs),
        second_moment=Statistic.of(np.exp(logs)), config=config, **more,
    )  # fmt: skip


def falling(decades, rng, seeds=4, noise=1.0):
    """Walks that lose `decades` on average, and differ by `noise` decades at their ends."""
    steps = rng.normal(-decades, noise * math.sqrt(L - 1), (seeds, L - 1)) / (L - 1) * DECADE
    return np.concatenate([np.zeros((seeds, 1)), steps.cumsum(axis=1)], axis=1)


def levels(records):
    """How many records have a vanishing signal that is sure, likely, neither."""
    found = [[f.severity for f in diagnose(r) if f.kind == "vanishing_signal"] for r in records]
    sure = sum("error" in s or "warning" in s for s in found)
    likely = sum("likely" in s for s in found)
    return sure, likely, len(records) - sure - likely


def test_more_likely_than_not_is_half_of_the_records_at_the_threshold():
    """The annealed change at 3 decades: half are likely, hardly one is sure; far below none is, far above all are."""
    rng = np.random.default_rng(0)
    # The annealed change of these walks is v / 2 above the typical one, v = 0.5^2 decades^2.
    drift = 0.5 * 0.5**2 * DECADE
    at, below, above = (
        levels([made(falling(d + drift, rng, noise=0.5)) for _ in range(60)]) for d in (3.0, 1.5, 4.2)
    )
    assert at[0] <= 2 and abs(at[1] - 30) <= 5 * math.sqrt(15)
    assert below == (0, 0, 60)
    assert above[0] + above[1] >= 57 and above[0] >= 30  # a walk may look like a power of depth


def test_it_says_how_many_seeds_would_tell():
    [found] = [
        f
        for f in diagnose(made(falling(4.5, np.random.default_rng(5), noise=1.5)))
        if f.kind == "vanishing_signal"
    ]
    assert found.severity == "likely" and 1e-3 <= found.p_value < thresholds.LIKELY
    assert "Likely, not sure yet: seeds=" in found.what and found.remedy
    assert more_seeds("likely", 0.45, 4).endswith("seeds=256 would tell more.")
    assert more_seeds("warning", 1e-5, 4) == ""


def test_the_verdict():
    d = diagnose(made(falling(4.5, np.random.default_rng(5), noise=1.5)))
    assert d.ok and d.word == "alive" and not d.at_least("warning") and d.at_least("likely")
    assert d.verdict.startswith("Alive as far as 4 seeds tell, but likely vanishing: the signal falls by")
    assert "1 likely" in repr(d)


def narrow(units, seeds, scale, rng):
    """Second moments of a stack with one layer of few units, behind which the signal falls by `scale` decades."""
    widths = [256] * 12
    widths[5] = units
    logs = rng.normal(0.0, 0.05, (seeds, 12))
    logs[:, 5:] += np.log(rng.chisquare(units, (seeds, 1)) / units)
    logs[:, 6:] -= scale * DECADE
    return made(logs, widths)


@pytest.mark.parametrize(("units", "seeds"), [(1, 1), (1, 4), (4, 1), (4, 4)])
def test_the_chance_of_few_units_is_no_step(units, seeds):
    """One unit is now and then a hundred times smaller than others: never sure, and likely in few of 100 records."""
    rng = np.random.default_rng(1)
    found = [f for _ in range(100) for f in diagnose(narrow(units, seeds, 0.0, rng)) if f.kind == "step"]
    assert len(found) <= 3 and {f.severity for f in found} <= {"likely"}


def test_a_step_behind_few_units_is_named():
    rng = np.random.default_rng(2)
    for units, seeds in ((8, 1), (4, 4)):
        for _ in range(20):
            found = diagnose(narrow(units, seeds, 2.2, rng)).at_least("likely")
            assert "step" in {f.kind for f in found}


def test_a_step_in_networks_that_die():
    """The log of a dead network has no mean: that of the mean second moment tells the step."""
    rng = np.random.default_rng(3)
    logs = rng.normal(0.0, 0.05, (16, 12))
    logs[:, 7:] -= 2.5 * DECADE
    logs[3, 7:] = -np.inf
    assert {"dying", "step"} <= {f.kind for f in diagnose(made(logs)).at_least("warning")}


@pytest.mark.parametrize("seeds", [1, 4])
def test_inputs_that_are_the_same_up_to_rounding(seeds):
    """1 - c falls below what float32 tells and wanders there by powers of ten: the way down is what counts."""
    rng = np.random.default_rng(4)
    logs = np.log(0.5) - 1.5 * np.arange(L) + rng.normal(0.0, 0.05, (seeds, L)).cumsum(axis=1)
    apart = np.where(logs > np.log(1e-13), np.exp(logs), 10.0 ** rng.uniform(-16, -13, (seeds, L)))
    record = made(
        np.zeros((seeds, L)) + rng.normal(0, 0.02, (seeds, L)),
        one_minus_correlation=Statistic.of(apart[:, :, None]),
    )
    [found] = [f for f in diagnose(record) if f.kind == "collapse"]
    assert found.severity == "error" and int(found.where[1]) < L


def test_a_collapse_that_narrow_layers_may_explain_is_a_note():
    """Walks of 1 - c that wander by e^±4, with a mean that hardly falls; twin: without the walk it is sure."""
    rng = np.random.default_rng(6)
    walk = rng.normal(0.0, 4.0 / math.sqrt(L - 1), (1, L)).cumsum(axis=1)
    walk -= (walk[:, -1:] + 8.0) * np.linspace(0, 1, L)
    level = np.zeros((1, L)) + rng.normal(0, 0.02, (1, L))
    wild = diagnose(made(level, one_minus_correlation=Statistic.of(0.5 * np.exp(walk)[:, :, None])))
    steady = np.exp(-9.0 / (L - 1) * np.arange(L))[None, :, None]
    assert wild.ok and [(f.kind, f.severity) for f in wild if f.kind == "collapse"] == [("collapse", "note")]
    assert not diagnose(made(level, one_minus_correlation=Statistic.of(0.5 * steady))).ok


def test_marks_beside_the_rows_of_a_model():
    """A step at one site is marked there, a vanishing signal at all sites; a healthy model has no such column."""
    names = [f"fc_{n}" for n in range(12)]
    layout = tuple(Site(n, "output", "Dense", n, (4, 256), "float32") for n in names)

    def table(logs):
        stat = Statistic.of(logs[None, :, None] + np.random.default_rng(8).normal(0, 0.02, (8, 12, 1)))
        record = Propagation("probe", tuple(names), 1, log_second_moment=stat, layout=layout)
        return marks(record), [str(c.header) for c in record.table().columns]

    one = np.zeros(12)
    one[5] = 7.0
    assert table(np.zeros(12)) == (("",) * 12, ["site", "shape", "rms"])
    assert table(one) == (("",) * 5 + ("!",) + ("",) * 6, ["site", "shape", "rms", ""])
    assert table(-2.0 * np.arange(12.0))[0] == ("✗",) * 12


def test_a_small_head_is_no_step():
    """Of five layers the last is drawn twenty times smaller, as the head of a maximal-update MLP; twin: larger."""
    logs = np.random.default_rng(9).normal(0.0, 0.02, (8, 5))
    logs[:, 4] -= 1.3 * DECADE
    assert "step" not in {f.kind for f in diagnose(made(logs, [128] * 4 + [10]))}
    logs[:, 4] += 3.9 * DECADE
    assert "step" in {f.kind for f in diagnose(made(logs, [128] * 4 + [10])).at_least("likely")}
