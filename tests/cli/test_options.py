"""Options become values; nothing but literals is evaluated."""

import argparse
import math

import pytest

from jaxinit import initializers
from jaxinit.cli import _options


def test_lists_split_outside_brackets():
    assert _options.split("he, normal(stddev=0.1), variance_scaling(2.0, 'fan_in', 'normal')") == [
        "he", "normal(stddev=0.1)", "variance_scaling(2.0, 'fan_in', 'normal')",
    ]  # fmt: skip
    assert _options.numbers("1e-3,2") == [0.001, 2.0]
    assert _options.seeds("16") == 16 and _options.seeds("3,5") == [3, 5]


def test_initializers_by_name_and_by_call():
    found = _options.initializers("he,normal(stddev=0.1),orthogonal(1.5)")
    assert found == {
        "he": initializers.he_normal(),
        "normal(stddev=0.1)": initializers.normal(0.1),
        "orthogonal(1.5)": initializers.orthogonal(1.5),
    }


@pytest.mark.parametrize(
    "known", [initializers.he_uniform(), initializers.normal(0.5), initializers.glorot_normal()]
)
def test_what_a_record_prints_is_understood(known):
    assert _options.initializer(repr(known)) == known


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "normal(open('x'))",
        "get('he')",
        "he(2.0)",
        "normal(",
        "(1)",
        "normal(*[1])",
    ],
)
def test_code_is_refused(text):
    with pytest.raises(ValueError, match=r"--init|get\(spec"):
        _options.initializer(text)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match=r"xavier"):
        _options.initializer("xavir")
    with pytest.raises(ValueError, match=r"he_normal"):
        _options.initializer("he_norml(2)")


def test_twice_the_same_is_refused():
    with pytest.raises(ValueError, match=r"'he' twice"):
        _options.initializers("he,he")


@pytest.mark.parametrize("kind", [_options.numbers, _options.seeds])
def test_words_are_no_numbers(kind):
    with pytest.raises(argparse.ArgumentTypeError, match=r"such as"):
        kind("many")


def test_json_has_no_nan():
    from jaxinit.cli._output import plain

    assert plain({"a": [math.nan, math.inf, -math.inf, 1.0]}) == {"a": ["nan", "inf", "-inf", 1.0]}
