"""The figure of a Jacobian's spectrum: per decade, atoms named."""

import numpy as np

from jaxinit import plot, spectra


def test_density_integrates_to_the_mass_outside_the_atoms() -> None:
    record = spectra.density("relu", 3, 2.0)
    ax = plot.figure(record).axes[0]
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(np.trapezoid(y, x), 1 - record.atom_masses.sum(), rtol=0.02)
    assert "λ" in ax.get_xlabel() and "decade" in ax.get_ylabel()
    texts = [t.get_text() for t in record.plot().legends[0].get_texts()]
    assert any("λ = 0" in t for t in texts)


def test_the_axis_is_where_something_is_to_be_seen() -> None:
    """Of the 45 decades of a spectrum those with 98 % of it, and with all that is higher than a line is wide."""
    record = spectra.density("tanh", 4, 1.0)
    ax = plot.figure(record).axes[0]
    x, y = ax.lines[0].get_data()
    low, high = ax.get_xlim()
    beyond = x < low
    assert x[0] < -40 and -15 < low < -9 and y[beyond].max() < 0.01 * y.max()
    assert np.trapezoid(y[beyond], x[beyond]) < 0.01 and high > x[-1]
