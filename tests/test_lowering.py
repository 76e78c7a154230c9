"""Which tests hold that an area's compiled programs lower for CUDA and TPU: an area that compiles has one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent

#: Area -> its test files that do so. Programs of `activations` run on the host, whatever the backend.
LOWERED = {
    "ensemble": ["test_engine.py"],
    "simulate": [
        "test_simulate.py", "test_convolution.py", "test_radial.py", "test_jacobian.py", "test_jacobian_lanczos.py",
        "test_lowering.py",
    ],
    "implicit": ["test_operators.py", "test_tied.py"],
    "meanfield": ["test_maps.py", "test_phase_diagram.py", "test_traced_fixed_point.py"],
    "initializers": ["test_properties.py"],
    "probe": ["test_probe.py", "test_implicit.py"],
    "adapt": ["test_calibrate.py", "test_mup.py", "test_calibrate_gradients.py"],
    "compare": ["test_compare.py"],
    "_core": ["test_normals.py", "test_lapack.py"],
}  # fmt: skip
ON_THE_HOST = {"activations"}


def test_every_area_that_compiles_is_lowered_in_a_test() -> None:
    package = ROOT.parent / "jaxinit"
    compiled = {
        file.relative_to(package).parts[0]
        for file in package.glob("*/*.py")
        if re.search(r"^[^#\n>]*\bjax\.jit\b", file.read_text(), re.MULTILINE)
    }
    assert compiled <= set(LOWERED) | ON_THE_HOST


@pytest.mark.parametrize(
    ("area", "file"), [(area, file) for area, files in LOWERED.items() for file in files]
)
def test_the_tests_are_there(area: str, file: str) -> None:
    text = (ROOT / area.removeprefix("_") / file).read_text()
    assert all(word in text for word in ("lowering_platforms=", '"cuda"', '"tpu"'))
