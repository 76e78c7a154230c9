"""Sweeps: every point is the simulation of its network, one program serves what differs in numbers."""

from pathlib import Path

import numpy as np
import pytest
from programs import chunks

import jaxinit as ji
from jaxinit.records import Sweep
from jaxinit.simulate import sweep

RECORD = ["second_moment", "log_second_moment", "correlation", "dead_fraction"]
#: Few statistics on one device: quick to compile.
OPTIONS = {"record": RECORD, "devices": 1, "backward": False}
GRID = {
    "depth": [2, 3], "width": 8, "activation": "relu", "weight_variance": np.array([1.0, 1.5, 2.0]), "q": (1.0, 2.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def programs() -> list[int]:
    """How many programs were compiled for the sweep of `found`."""
    return []


@pytest.fixture(scope="module")
def found(programs: list[int]) -> Sweep:
    before = chunks()
    out = sweep(GRID, 6, keep_seeds=True, **OPTIONS)
    programs.append(chunks() - before)
    return out


def same(a: ji.Propagation, b: ji.Propagation) -> None:
    assert a.sites == b.sites and a.count == b.count and a.label == b.label
    assert [n for n, _ in a.statistics()] == [n for n, _ in b.statistics()]
    for name, stat in a.statistics():
        for field in ("mean", "stderr", "min", "max", "defined", "samples"):
            np.testing.assert_array_equal(getattr(stat, field), getattr(b[name], field), strict=True)


def test_every_point_is_a_simulation(found: Sweep, programs: list[int]) -> None:
    assert programs == [2]  # one a depth
    for depth in GRID["depth"]:
        for variance, q in ((1.0, 2.0), (2.0, 1.0)):
            network = ji.Network(depth, 8, "relu", weight_variance=variance)
            alone = ji.simulate(network, 6, q=q, keep_seeds=True, **OPTIONS)
            point = found.at(depth=depth, weight_variance=variance, q=q)
            same(point, alone)
            assert point.config["q"] == q and point.config["sampler"] == alone.config["sampler"]


def test_the_grid(found: Sweep) -> None:
    assert found.axes == {"depth": (2, 3), "weight_variance": (1.0, 1.5, 2.0), "q": (1.0, 2.0)}
    assert found.shape == (2, 3, 2) and found.count == 6 and "weight_variance: 3" in repr(found)
    mean = found["second_moment"].mean
    assert mean.shape == (2, 3, 2, 3, 2)
    assert np.all(np.isnan(mean[0, ..., 2, :])) and not np.any(np.isnan(mean[1]))
    assert found["second_moment"].samples.shape == (6, 2, 3, 2, 3, 2)
    np.testing.assert_allclose(
        mean[:, :, 1, :2], 2 * mean[:, :, 0, :2], rtol=1e-5
    )  # ReLU: q scales the signal


def test_saved_and_loaded(found: Sweep, tmp_path: Path) -> None:
    again = ji.load(found.save(tmp_path / "sweep.npz"))
    assert isinstance(again, Sweep) and again.axes == found.axes and again.points == found.points
    for (name, a), b in zip(found.propagations().items(), again.propagations().values(), strict=True):
        same(a, b)
        assert name.startswith("depth=")


def test_tables_and_frames(found: Sweep) -> None:
    rows = found.rows()
    assert len(rows) == 6 * (2 + 3) * (2 + 2 + 1 + 1)
    assert {"depth", "weight_variance", "q", "site", "statistic", "mean", "stderr"} <= rows[0].keys()
    assert len(found.to_pandas()) == len(rows)
    table = found.table(max_rows=5)
    assert table.row_count == 5
    assert [c.header for c in table.columns] == [*found.axes, "⟨z²⟩ out", "corr. out", "dead out"]
    data = found.to_xarray()
    assert (
        data["second_moment"].sel(depth=3, weight_variance=1.5, q=2.0, site="2", input=0)
        == (found["second_moment"].mean[1, 1, 1, 1, 0])
    )


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"depth": 2, "q": 1.0}, r"at\(weight_variance=...\) must say which"),
        ({"depth": 2, "q": 1.0, "weight_variance": 3.0}, "no value 3.0.*1.5"),
        ({"dpth": 2}, "Did you mean 'depth'"),
    ],
)
def test_points_that_are_not_there(found: Sweep, choice: dict, words: str) -> None:
    with pytest.raises(KeyError, match=words):
        found.at(**choice)
    with pytest.raises(KeyError, match="no statistic 'kurtosis'"):
        found["kurtosis"]


def test_names_and_numbers_of_values() -> None:
    grid = {
        "depth": 2, "width": 8, "weight_variance": 1.0, "bias_variance": [0.1, 0.2],
        "activation": {"square": lambda x: x * x, "half": lambda x: x / 2},
        "residual": [ji.Residual(beta=0.1), ji.Residual(beta=0.5)],
    }  # fmt: skip
    before = chunks()
    out = sweep(grid, 2, **OPTIONS | {"record": ["second_moment"]})
    assert chunks() - before == 2  # one an activation; beta and variances are numbers
    assert out.axes["activation"] == ("square", "half") and "beta=0.5" in out.axes["residual"][1]
    values = out["second_moment"].mean[..., -1, 0].ravel()
    assert len(np.unique(values)) == values.size
    assert out.at(activation="half", bias_variance=0.2, residual=out.axes["residual"][0]).count == 2


def test_resumed_with_the_same_bits(found: Sweep, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 72
        if done >= 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(GRID, 6, keep_seeds=True, resume=tmp_path, progress=stop, **OPTIONS)
    assert len(list(tmp_path.glob("point-*/chunk-*.npz"))) == 3
    again = sweep(GRID, 6, keep_seeds=True, resume=tmp_path, **OPTIONS)
    for a, b in zip(found.propagations().values(), again.propagations().values(), strict=True):
        same(a, b)
    with pytest.raises(ValueError, match=r"q = 2.0 there, 3.0 here.*point-00001"):
        sweep(GRID | {"q": [1.0, 3.0]}, 6, keep_seeds=True, resume=tmp_path, **OPTIONS)


@pytest.mark.parametrize(
    ("grid", "options", "error", "words"),
    [
        (ji.Network(2, 8, "relu", weight_variance=1.0), {}, TypeError, "a dict of the arguments"),
        ({}, {}, ValueError, "with depth, width and activation.*Add depth, width, activation"),
        (GRID | {"dept": 2}, {}, ValueError, "Did you mean 'depth'"),
        (GRID | {5: 2}, {}, ValueError, "got 5. Known names: activation"),
        (GRID | {"q": []}, {}, ValueError, "at least one value on the axis 'q'"),
        (GRID | {"q": [1, 1.0]}, {}, ValueError, "twice on the axis 'q'"),
        (GRID | {"activation": [lambda x: x, lambda x: -x]}, {}, ValueError, "told apart by a dict"),
        (GRID | {"depth": [1, 0]}, {}, ValueError, r"Network\(depth=...\)"),
        (GRID, {"jacobian": True}, TypeError, "no argument 'jacobian'"),
        (GRID, {"seeds": 0}, ValueError, r"sweep\(seeds=...\)"),
    ],
)
def test_bad_input(grid: dict, options: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        sweep(grid, options.pop("seeds", 2), **options)
