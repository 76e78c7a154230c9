"""Phase diagrams against single fixed points, saved and loaded, and compiled for accelerators."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxinit.activations import get
from jaxinit.meanfield import all_fixed_points, critical, fixed_point, phase_diagram
from jaxinit.meanfield._layers import _lengths_scan, _pairs_scan
from jaxinit.meanfield._phase_diagram import _correlations_program, _lengths_program
from jaxinit.meanfield._table import table
from jaxinit.records import load


@pytest.mark.parametrize(
    ("name", "weights", "biases", "tolerance"),
    [
        pytest.param("tanh", [0.25, 1.0, 1.9, 5.0, 16.0], [0.0, 0.03, 1.0], 1e-9, marks=pytest.mark.slow),
        ("hard_tanh", [0.5, 1.4, 4.0], [0.02, 0.4], 1e-6),
        ("gelu", [1.0, 1.99, 2.6], [0.0, 0.16], 1e-8),
        ("relu", [1.0, 2.0, 2.5], [0.0, 0.3], 1e-12),
    ],
)
def test_grid_equals_single_points(name, weights, biases, tolerance):
    diagram = phase_diagram(name, weights, biases)
    assert diagram.shape == (len(weights), len(biases))
    for i, w in enumerate(weights):
        for j, b in enumerate(biases):
            p = fixed_point(name, w, b)
            assert diagram.phase[i, j] == p.phase and diagram.status[i, j] == p.status, (w, b)
            for field in ("q", "chi_q", "chi_1", "c", "one_minus_c", "chi_c"):
                found, expected = getattr(diagram, field)[i, j], getattr(p, field)
                np.testing.assert_allclose(
                    found, expected, rtol=10 * tolerance, atol=tolerance, err_msg=f"{field} {w} {b}"
                )
            if np.isfinite(p.xi_c) and p.xi_c < 1e3:
                np.testing.assert_allclose(diagram.xi_c[i, j], p.xi_c, rtol=1e3 * tolerance)


def test_close_to_the_edge():
    edge = critical("tanh", 0.05)[0].weight_variance
    weights = edge * (1 + np.asarray([-1e-3, 1e-6, 1e-3]))
    diagram = phase_diagram("tanh", weights, [0.05])
    assert diagram.phase[:, 0].tolist() == ["ordered", "chaotic", "chaotic"]
    for i in (1, 2):
        expected = fixed_point("tanh", float(weights[i]), 0.05).one_minus_c
        np.testing.assert_allclose(diagram.one_minus_c[i, 0], expected, rtol=1e-4)


def test_edge_runs_between_the_phases():
    diagram = phase_diagram("tanh", np.linspace(0.5, 3.0, 6), np.linspace(0.0, 0.2, 3))
    for w, b in zip(
        diagram.critical_weight_variance[::80], diagram.critical_bias_variance[::80], strict=True
    ):
        if b > 1e-6:
            assert abs(fixed_point("tanh", float(w), float(b)).chi_1 - 1) < 1e-9
    assert diagram.critical_weight_variance.size > 50


def test_record_saves_loads_and_lists(tmp_path):
    diagram = phase_diagram("tanh", [0.5, 4.0], [0.05, 0.2, 0.3])
    back = load(diagram.save(tmp_path / "diagram.npz"))
    for f in dataclasses.fields(diagram):
        np.testing.assert_array_equal(getattr(back, f.name), getattr(diagram, f.name))
    rows = diagram.rows()
    assert len(rows) == 6 and rows[3]["weight_variance"] == 4.0 and rows[3]["phase"] == "chaotic"
    assert diagram.table().row_count == 6
    assert "50 % chaotic" in repr(diagram)


def test_one_program_for_every_grid_of_a_size():
    phase_diagram("tanh", np.linspace(0.6, 2.0, 7), [0.1])
    before = _lengths_program._cache_size()
    phase_diagram("tanh", np.linspace(0.9, 3.0, 9), [0.2])
    phase_diagram("hard_tanh", np.linspace(0.9, 3.0, 9), [0.2])
    assert _lengths_program._cache_size() == before


def test_refusals():
    with pytest.raises(ValueError, match="continuous"):
        phase_diagram("threshold_relu", [1.0], [0.1])
    with pytest.raises(ValueError, match="at least 0"):
        phase_diagram("tanh", [-1.0], [0.1])
    with pytest.raises(ValueError, match="1-D"):
        phase_diagram("tanh", np.ones((2, 2)), [0.1])


def test_programs_lower_for_accelerators():
    held = table(get("tanh"), 0.3, 3.0)
    grid, points = np.ones(193), np.ones(512)
    with jax.enable_x64(True):
        layers = (points, np.zeros((len(points), 2)), points, points)
        programs = [
            (_lengths_program, (held, grid, grid, 0.0, 1.0, points, points), {}),
            (_correlations_program, (held, points, points, points, points), {}),
            (
                _lengths_scan,
                (held, -1.0, 1.0, 0.1, 0.0, (-2.0, 0.0), layers[:2]),
                {"post": True, "normed": False},
            ),
            (
                _pairs_scan,
                (held, -1.0, 1.0, 0.1, -2.0, -1.0, (points, points, points, *layers[1:])),
                {"post": False},
            ),
        ]
        for program, arguments, static in programs:
            program.trace(*arguments, **static).lower(lowering_platforms=("cuda", "tpu"))


@pytest.mark.parametrize("name", ["tanh", "hard_tanh"])
def test_errors_cover_what_they_speak_of(name):
    """Points drawn beforehand, one at the edge: the estimate holds, and is small away from the edge."""
    draw = np.random.default_rng(5)
    w, b = np.sort(draw.uniform(0.6, 6.0, 6)), draw.uniform(0.02, 0.3, 2)
    w[0] = critical(name, float(b[0]))[0].weight_variance * (1 + 1e-7)
    diagram = phase_diagram(name, w, b)
    for i, j in np.ndindex(diagram.shape):
        p = fixed_point(name, float(w[i]), float(b[j]))
        assert abs(diagram.q[i, j] / p.q - 1) <= diagram.q_error[i, j] + 1e-12, (i, j)
        assert abs(diagram.one_minus_c[i, j] - p.one_minus_c) <= diagram.c_error[i, j] + 1e-11, (i, j)
        assert abs(diagram.xi_c[i, j] / p.xi_c - 1) <= diagram.xi_c_error[i, j] + 1e-9, (i, j)
        if abs(p.chi_1 - 1) > 0.1:
            assert diagram.q_error[i, j] < 1e-6 and diagram.c_error[i, j] < 1e-5
    assert diagram.xi_c_error[0, 0] > 100 * diagram.xi_c_error[-1, -1]  # at the edge


def test_fixed_points_close_to_each_other_are_kept_apart():
    """Near gelu's tangency two fixed points are a factor 1.14 apart, within one step of the scan."""
    weight, bias = 1.99, 0.165
    low, middle, high = (p.q for p in all_fixed_points("gelu", weight, bias))
    assert 1.1 < middle / low < 1.2
    start = float(np.sqrt(low * middle))
    np.testing.assert_allclose(phase_diagram("gelu", [weight], [bias], q0=start).q, low, rtol=1e-6)
    np.testing.assert_allclose(phase_diagram("gelu", [weight], [bias], q0=1.01 * middle).q, high, rtol=1e-6)
