"""Saved records become pages and figures without running anything again."""

import json
from pathlib import Path

import pytest

from jaxinit.cli import main


@pytest.fixture
def saved(synthetic, tmp_path):
    """Three saved records: two signals, and the training of both initializers."""
    for name, rate in (("he", 1.0), ("xavier", 0.5)):
        synthetic.propagation(rate).save(tmp_path / f"{name}.npz")
    synthetic.convergence(("xavier", "he")).save(tmp_path / "training.npz")
    return tmp_path


def test_report_joins_records_by_label(saved, capsys, tmp_path):
    words = [str(saved / f"{name}.npz") for name in ("he", "xavier", "training")]
    assert main(["report", *words, "--title", "Three files", "--out", str(tmp_path / "page")]) == 0
    out = capsys.readouterr().out
    assert "he: alive." in out and "xavier: vanishing." in out and out.count("Training: ") == 2
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "<title>Three files</title>" in page and "jaxinit report " in page


def test_plot_draws_signals_together(saved, capsys, tmp_path):
    words = [f"He={saved / 'he.npz'}", str(saved / "xavier.npz"), f"runs={saved / 'training.npz'}"]
    target = tmp_path / "figures"
    assert main(["plot", *words, "--format", "svg", "--theme", "dark", "--out", str(target), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files == [str(target / "profiles.svg"), str(target / "runs.svg")]
    assert all(Path(f).read_text(encoding="utf-8").startswith("<?xml") for f in files)


def test_labels_that_make_one_file_name_are_kept_apart(saved, capsys, tmp_path):
    words = [f"{label}={saved / 'training.npz'}" for label in ("a b", "a-b")]
    assert main(["plot", *words, "--format", "svg", "--out", str(tmp_path / "o"), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [Path(f).name for f in files] == ["a-b.svg", "a-b-2.svg"] and all(Path(f).exists() for f in files)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "none.npz"], "no record at 'none.npz'"),
        (["report", "{}"], "he.npz, "),
        (["plot", "{}/he.npz", "{}/he.npz"], "labelled 'he'"),
        (["plot", "{}/he.npz", "--format", "doc"], "png"),
        (["plot", "{}/he.npz", "--theme", "pink"], "'light' or 'dark'"),
        (["report", "{}/broken.npz"], "not a whole jaxinit record"),
    ],
)
def test_bad_files(saved, words, message, capsys, tmp_path):
    (saved / "broken.npz").write_bytes((saved / "he.npz").read_bytes()[:1000])
    assert main([*(w.format(saved) for w in words), "--out", str(tmp_path / "o")]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("jaxinit: error: ") and message in err and len(err.splitlines()) == 1 and out == ""
    assert not (tmp_path / "o").exists()
