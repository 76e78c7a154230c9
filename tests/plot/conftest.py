import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def synthetic():
    """The makers of synthetic records."""
    spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def propagation(synthetic):
    return synthetic.propagation


@pytest.fixture(scope="session")
def convergence(synthetic):
    return synthetic.convergence
