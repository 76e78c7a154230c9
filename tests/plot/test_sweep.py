"""Heat maps of sweeps: which cell holds which number."""

import numpy as np
import pytest

from jaxinit import plot
from jaxinit.records import Sweep


@pytest.fixture(scope="module")
def sweep(propagation):
    """Rates 0.5, 0.9, 1.1 by depths 4, 7: the signal of a point ends at rate ** (depth - 1)."""
    axes = {"rate": (0.5, 0.9, 1.1), "depth": (4, 7), "activation": ("relu",)}
    points = [propagation(r, d, seeds=3) for r in axes["rate"] for d in axes["depth"]]
    return Sweep.of(axes, points)


def cells(figure, panel):
    return figure.axes[panel].collections[0].get_array()


def test_cells_are_what_arrives(sweep):
    figure = sweep.plot()
    assert [ax.get_title() for ax in figure.axes[:4]] == [
        "log₁₀ Signal: second moment, last layer", "log₁₀ Gradient: second moment, first layer",
        "Correlation of two inputs, last layer", "Dead units, last layer",
    ]  # fmt: skip
    signal = np.log10([[0.5**3, 0.9**3, 1.1**3], [0.5**6, 0.9**6, 1.1**6]])
    np.testing.assert_allclose(cells(figure, 0), signal, atol=1e-6)
    np.testing.assert_allclose(cells(figure, 1), signal, atol=1e-6)  # the gradient comes from the other end
    np.testing.assert_allclose(cells(figure, 2)[0], 1 - 0.5 * np.exp(-3 / 5), rtol=1e-6)
    assert "3 seeds" in figure.get_suptitle()


def test_axes_by_name_and_the_other_way_round(sweep):
    turned = sweep.plot(x="depth", y="rate", statistics=["log_second_moment"])
    np.testing.assert_array_equal(cells(turned, 0), cells(sweep.plot(), 0).T)
    labels = [t.get_text() for t in turned.axes[0].get_yticklabels()]
    assert labels == ["0.5", "0.9", "1.1"]  # unevenly spaced values stand in order, named


def test_over_layers_a_column_is_a_network(sweep):
    figure = sweep.plot(y="layer", at={"depth": 4}, statistics=["log_second_moment"])
    shown = cells(figure, 0)
    np.testing.assert_allclose(shown[:4, 0], np.arange(4) * np.log10(0.5), atol=1e-6)
    assert shown.mask[4:].all() and "depth = 4" in figure.get_suptitle()
    assert "depth = 7" in sweep.plot(y="layer").get_suptitle()


def test_a_sweep_of_one_network_is_its_profile(propagation):
    one = Sweep.of({"rate": (0.5,)}, [propagation(0.5, 4)])
    assert one.plot().axes[0].get_xlabel() == "layer"
    assert plot.drawable(one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "width"}, "'rate'"),
        ({"x": "layer"}, "'rate'"),
        ({"x": "rate", "y": "rate"}, "another axis"),
        ({"y": "layer", "at": {"depth": 5}}, "one of 4, 7"),
        ({"at": {"rate": 0.5}}, "activation"),
        ({"statistics": ["kurtosis"]}, "recorded"),
        ({"statistics": ["lenght"]}, "second_moment"),
    ],
)
def test_bad_input(sweep, options, message):
    with pytest.raises(ValueError, match=message):
        plot.sweep_map(sweep, **options)
