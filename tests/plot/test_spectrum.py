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
