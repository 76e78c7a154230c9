# Every target sets itself up: a virtual environment beside this file, made anew when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-dev
DOCS_READY := $(VENV)/.ready-docs
JOBS ?= 2

.PHONY: demo test quick slow lint docs bench smoke clean

$(READY): pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

## The whole story in one command: which initializer keeps the signal alive, and what that does to training.
demo: $(READY)
	$(BIN)/jaxinit demo --out demo

## Everything that CI runs.
test: lint $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

## The tests that take seconds.
quick: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow"

## The others.
slow: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## The documentation, with every notebook executed; any warning fails. Open docs/_build/html/index.html.
docs: $(DOCS_READY)
	rm -rf docs/_build/[a-z]*  # all but what is cached with JAXINIT_DOCS_EXECUTE=cache
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --jobs auto -b html docs docs/_build/html

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $@

## The benchmarks, with the ratios they print. Run them on a quiet machine.
bench: $(READY)
	for script in experiments/bench/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

## A small part of the tests on the newest JAX, where a newer interpreter is installed: make smoke PYTHON=python3.13
smoke: .venv-newest/.ready
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS=--xla_backend_optimization_level=3 .venv-newest/bin/python -m pytest -q -m "not slow" tests/smoke

.venv-newest/.ready: pyproject.toml
	rm -rf .venv-newest
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade pip
	.venv-newest/bin/python -m pip install --quiet --editable '.[plot,data]' pytest scipy
	touch $@

clean:
	rm -rf $(VENV) .venv-newest demo docs/_build .pytest_cache .mypy_cache .ruff_cache
