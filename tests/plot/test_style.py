"""The house style: distinct looks, no global state, an install hint, whole files."""

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from jaxinit import plot
from jaxinit.diagnose import diagnose
from jaxinit.plot import _style
from jaxinit.records import Sweep


def test_looks_are_distinct_without_colour():
    looks = [_style.look(i) for i in range(21)]
    assert len({(x.colour, x.marker, str(x.dash)) for x in looks}) == 21
    assert len({(x.marker, str(x.dash)) for x in looks[:7]}) == 7


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_stands_out_from_its_background(theme):
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a, b):
        a, b = sorted((luminance(a), luminance(b)))
        return (b + 0.05) / (a + 0.05)

    colours = _style.THEMES[theme]
    assert contrast(colours.ink, colours.background) > 7
    assert min(contrast(c, colours.background) for c in colours.series) > 2.1


def test_drawing_leaves_pyplot_and_settings_alone(synthetic):
    code = """
import sys, matplotlib
before = dict(matplotlib.rcParams)
import runpy
make = runpy.run_path(sys.argv[1])["propagation"]
from jaxinit import plot
plot.png(plot.figure(make()))
assert "matplotlib.pyplot" not in sys.modules
assert before == dict(matplotlib.rcParams)
"""
    subprocess.run([sys.executable, "-c", code, synthetic.__file__], check=True, timeout=120)


def test_lines_of_a_users_own_are_in_the_colours_of_the_theme():
    for theme in ("light", "dark"):
        _, (ax,) = plot.new_figure(theme=theme)
        drawn = [ax.plot([0, 1], [0, n])[0].get_color() for n in range(3)]
        assert drawn == list(_style.THEMES[theme].series[:3])


def test_threads_draw_the_same_picture(propagation):
    record = propagation(0.5, 8)
    with ThreadPoolExecutor(3) as pool:
        images = list(pool.map(lambda _: plot.png(plot.depth_profile(record).figure, dpi=50), range(3)))
    assert len(set(images)) == 1


def test_without_matplotlib_the_error_says_how_to_install_it(propagation, monkeypatch):
    record = propagation()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxinit\[plot\]'"):
        plot.depth_profile(record)


def test_a_notebook_shows_the_figure(propagation):
    assert plot.figure(propagation())._repr_png_().startswith(b"\x89PNG")
    assert propagation().plot(theme="dark").get_facecolor() != (1.0, 1.0, 1.0, 1.0)


def test_save_writes_whole_files_of_known_kinds(propagation, tmp_path):
    figure = plot.depth_profile(propagation()).figure
    for name, magic in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        assert plot.save(figure, tmp_path / "new" / name).read_bytes().startswith(magic)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.pdf", "a.png", "a.svg"]
    with pytest.raises(ValueError, match=r"ends in .*png.*got '.*a\.doc'"):
        plot.save(figure, tmp_path / "a.doc")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda figure: plot.new_figure(0),
            ValueError,
            r"new_figure\(rows=...\)` must be an integer of at least 1",
        ),
        (lambda figure: plot.new_figure(1, "2"), TypeError, r"columns=...\)` must be an integer"),
        (
            lambda figure: plot.new_figure(size=5),
            TypeError,
            r"size=...\)` must be \(width, height\) in inches",
        ),
        (
            lambda figure: plot.new_figure(size=(3, np.nan)),
            ValueError,
            r"size=...\)` must be a finite number",
        ),
        (
            lambda figure: plot.save(figure, "a.png", dpi="x"),
            TypeError,
            r"save\(dpi=...\)` must be a real number",
        ),
        (lambda figure: plot.save(figure, "a.png", dpi=1e9), ValueError, "at most 12603.1"),
    ],
)
def test_bad_sizes(call, error, words):
    with pytest.raises(error, match=words):
        call(plot.new_figure()[0])


def test_nothing_is_cut_or_overlaps(propagation):
    runs = {f"initializer number {i}": propagation(0.9**i) for i in range(9)}
    figure = plot.figure(runs)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    whole = figure.bbox
    box = figure.legends[0].get_window_extent(renderer)
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0
    for ax in figure.axes:
        tight = ax.get_tightbbox(renderer)
        assert tight.x0 >= 0 and tight.x1 <= whole.x1 + 1 and tight.y1 <= whole.y1 + 1
        assert tight.y0 >= box.y1 - 1


def test_nothing_is_written_in_black_on_dark(propagation, convergence):
    runs = convergence(("he", "xavier"))
    at = (2, 2, 3, len(runs.evaluated_at), 4)
    signals = {"silent_fraction": np.linspace(0, 1, np.prod(at)).reshape(at)}
    trained = dataclasses.replace(runs, signals=signals, sites=("a", "b", "c", "d"))
    grid = Sweep.of({"rate": (0.5, 1.0)}, [propagation(r, 4) for r in (0.5, 1.0)])
    figures = [plot.figure(r, theme="dark") for r in (propagation(), runs, grid, diagnose(propagation(0.5)))]
    figures.append(plot.training_signals(trained, theme="dark"))
    for figure in figures:
        assert len(plot.png(figure, dpi=40)) > 1000
        texts = [t for t in figure.findobj(Text) if t.get_text().strip()]
        assert len(texts) > 10
        assert [t.get_text() for t in texts if to_hex(t.get_color()) == "#000000"] == []
