"""Propagation: access by name, rows, tables."""

import io

import numpy as np
import pytest
from rich.console import Console

import jaxinit as ji
from jaxinit.records import Propagation, Statistic
from jaxinit.records._tables import format_figure, format_log, shown


def text(record: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(record)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def run() -> Propagation:
    return ji.simulate(ji.Network(40, 32, "relu", weight_variance=1.0), seeds=5)


def test_by_name(run: Propagation) -> None:
    assert run["second_moment"] is run.second_moment
    with pytest.raises(KeyError, match="Did you mean 'second_moment'"):
        run["second_momen"]
    with pytest.raises(KeyError, match="update_ratio"):
        run["update_ratio"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"sites": "123"}, TypeError, r"Propagation\(sites=...\)` must be a tuple of names, got '123'"),
        ({"sites": (1, 2, 3)}, TypeError, "a tuple of names"),
        ({"inputs": 0}, ValueError, r"inputs=...\)` must be an integer of at least 1"),
        (
            {"mean": np.ones((3, 1))},
            TypeError,
            r"mean=...\)` must be a Statistic or None.*Statistic.exact\(values\)",
        ),
        (
            {"mean": Statistic.exact(np.ones(3))},
            ValueError,
            r"of shape \(sites, inputs\), with 3 sites, got \(3,\)",
        ),
        (
            {"zero_fraction": Statistic.exact(np.ones(2))},
            ValueError,
            r"of shape \(sites\), with 3 sites, got \(2,\)",
        ),
        ({"config": None}, TypeError, "a dict of what was run"),
    ],
)
def test_records_that_do_not_fit_together(change: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        Propagation(**{"source": "theory", "sites": ("1", "2", "3"), "inputs": 1, **change})


def test_rows_and_pandas(run: Propagation) -> None:
    rows = run.rows()
    size = sum(s.mean.size for _, s in run.statistics())
    assert len(rows) == size == len(run.to_pandas())
    first = rows[0]
    assert first["site"] == "1" and first["statistic"] == "second_moment" and first["count"] == 5
    assert {"mean", "stderr", "min", "max", "label", "source"} <= first.keys()


def test_xarray(run: Propagation) -> None:
    data = run.to_xarray()
    assert data["second_moment"].dims == ("site", "input") and data["correlation"].dims == ("site", "pair")
    np.testing.assert_array_equal(data["second_moment_stderr"], run.second_moment.stderr)


def test_table_shows_first_and_last_site(run: Propagation) -> None:
    shown_text = text(run)
    lines = [line for line in shown_text.splitlines() if line.startswith("│")]
    assert lines[0].split("│")[1].strip() == "1" and lines[-1].split("│")[1].strip() == "40"
    assert len(lines) == 24
    assert all(told in shown_text for told in ("⟨z²⟩", "5 seeds", "24 of 40 sites"))


def test_repr_is_one_line(run: Propagation) -> None:
    assert "\n" not in repr(run) and "40 sites" in repr(run) and "5 seeds" in repr(run)


def test_theory_has_no_error() -> None:
    s = Statistic.exact(np.ones((3, 2)))
    assert (
        s.count == 0
        and (s.stderr == 0).all()
        and "exact" in text(Propagation("theory", ("1", "2", "3"), 2, second_moment=s))
    )


@pytest.mark.parametrize(
    ("log", "want"),
    [
        (0.0, "1"),
        (-np.inf, "0"),
        (np.inf, "inf"),
        (np.nan, "nan"),
        (np.log(0.25), "0.25"),
        (-7000.0, "8.68e-3041"),
    ],
)
def test_logs_beyond_the_float_range(log: float, want: str) -> None:
    assert format_log(log) == want


@pytest.mark.parametrize(
    ("mean", "stderr", "want"),
    [
        (0.7314, 0.0042, "0.731 ± 0.004"),
        (12.34, 0.6, "12.3 ± 0.6"),
        (1.0, 0.0, "1"),
        (2e-9, 3e-10, "2.00e-09 ± 3e-10"),
    ],
)
def test_figures_show_their_digits(mean: float, stderr: float, want: str) -> None:
    assert format_figure(mean, stderr) == want


def test_shown_rows() -> None:
    assert shown(3, 10).tolist() == [0, 1, 2]
    rows = shown(1000, 10)
    assert len(rows) == 10 and rows[0] == 0 and rows[-1] == 999
