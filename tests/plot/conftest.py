import pytest


@pytest.fixture(scope="session")
def propagation(synthetic):
    return synthetic.propagation


@pytest.fixture(scope="session")
def convergence(synthetic):
    return synthetic.convergence
