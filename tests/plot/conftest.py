import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def propagation():
    """The maker of synthetic Propagation records."""
    spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.propagation
