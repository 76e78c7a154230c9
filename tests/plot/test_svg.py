"""Figures inside a page: they take its ink, bring nothing along, and share no ids."""

import re
import xml.etree.ElementTree as ET

import pytest

from jaxinit import plot
from jaxinit.plot import _style


@pytest.fixture(scope="module")
def drawn(propagation, convergence):
    return {
        "depth": plot.svg(
            plot.depth_profile({"a": propagation(), "b": propagation(0.9)}).figure, 'a "b" & <c>'
        ),
        "training": plot.svg(plot.training(convergence())),
    }


def test_it_is_one_element_that_says_what_it_is(drawn):
    for text in drawn.values():
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "<style" not in text and "<metadata" not in text and "http" not in text.split(">", 1)[1]
    assert ET.fromstring(drawn["depth"]).attrib["aria-label"] == 'a "b" & <c>'
    assert ET.fromstring(drawn["training"]).attrib["aria-hidden"] == "true"


def test_every_colour_of_the_theme_is_left_to_the_page(drawn):
    light = _style.THEMES["light"]
    for text in drawn.values():
        plain = re.sub(r"var\(--figure-\w+, #\w{6}\)", "", text)
        assert not re.findall(
            r"(?i)" + "|".join([light.ink, light.faint, light.background, *light.series]), plain
        )
        assert "currentColor" in text and "var(--figure-0, #0072b2)" in text


def test_the_variables_are_those_that_figures_read():
    assert "--figure-0: #56B4E9;" in plot.variables("dark") and "--figure-paper: #15181c;" in plot.variables(
        "dark"
    )
    names = set(re.findall(r"(--figure-\w+):", plot.variables("light")))
    read = set(re.findall(r"var\((--figure-\w+),", " ".join([*_colours(), _paper()])))
    assert names == read


def _colours():
    from jaxinit.plot import _svg

    return _svg._COLOURS.values()


def _paper():
    from jaxinit.plot import _svg

    return _svg._PAPER


def test_ids_are_used_and_are_no_other_figures(drawn):
    ids = {}
    for name, text in drawn.items():
        ids[name] = re.findall(r'\bid="([^"]+)"', text)
        assert set(ids[name]) == set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
        assert len(ids[name]) == len(set(ids[name]))
    assert not set(ids["depth"]) & set(ids["training"])


def test_the_same_figure_is_the_same_text(propagation):
    first, second = (plot.svg(plot.depth_profile(propagation(0.5, 5)).figure) for _ in range(2))
    assert first == second
