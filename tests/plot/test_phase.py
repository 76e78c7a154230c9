"""The figure of a phase diagram: two panels, the edge of chaos on both, blanks where nothing exists."""

import numpy as np

import jaxinit as ji
from jaxinit import plot
from jaxinit.records import PhaseDiagram


def record() -> PhaseDiagram:
    return ji.meanfield.phase_diagram("tanh", np.linspace(0.5, 4, 6), np.linspace(0.0, 0.5, 5))


def test_panels_axes_and_edge() -> None:
    drawn = record()
    left, right = plot.figure(drawn).axes[:2]
    for ax in (left, right):
        assert "σw²" in ax.get_xlabel() and "σb²" in ax.get_ylabel() and ax.get_title()
        np.testing.assert_array_equal(ax.lines[-1].get_xdata(), drawn.critical_weight_variance)
    assert drawn.plot().get_suptitle().startswith("tanh")


def test_undefined_points_are_blank() -> None:
    mesh = plot.figure(record()).axes[1].collections[0]
    assert np.ma.getmaskarray(mesh.get_array()).any()  # q* = 0 has no correlation


def test_record_survives_a_file_and_draws_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    drawn = record()
    again = ji.load(drawn.save(tmp_path / "phase.npz"))
    assert plot.png(plot.figure(again, theme="dark")) == plot.png(plot.figure(drawn, theme="dark"))
