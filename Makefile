# Each target sets itself up: a virtual environment with the exact versions of constraints.txt, made once.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= python3
# Those that constraints.txt names are for Python 3.11 and newer; CONSTRAINTS=/dev/null takes the newest there are
CONSTRAINTS ?= constraints.txt
PIP_INSTALL := pip install --quiet --disable-pip-version-check
# The lowest torch of pyproject.toml, a CUDA build of 3 GB; LOWEST_TORCH=2.13.0 takes another with the lowest of all else
LOWEST_TORCH ?= 2.8.0
LOWEST := .venv-lowest

.PHONY: train agents pictures test test-integration test-lowest dist benchmark-smoke lint format type check-codestyle commit-checks docs citation clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP_INSTALL) -c $(CONSTRAINTS) torch
	$(BIN)/$(PIP_INSTALL) -c $(CONSTRAINTS) -e '.[dev]'
	touch $(STAMP)

train: $(STAMP)
	$(BIN)/python examples/train.py

# Agents of four tasks with their cards, into agents/: about an hour on one core
agents: $(STAMP)
	$(BIN)/python examples/agents.py

# Those of README and documentation, and a film, of two agents that are trained for them: a quarter of an hour
pictures: $(STAMP)
	$(BIN)/python examples/pictures.py --output docs/pictures

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term --cov-fail-under=95

# Two algorithms, two environments, two seeds, few steps, and their report
benchmark-smoke: $(STAMP)
	rm -rf runs/benchmark-smoke
	$(BIN)/python -m benchmarks.run smoke --output runs/benchmark-smoke --jobs 2
	$(BIN)/python -m benchmarks.report smoke --output runs/benchmark-smoke

test-integration: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m integration --durations=0

# The lowest versions that pyproject.toml promises, in an environment of their own
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/$(PIP_INSTALL) -c constraints-lowest.txt torch==$(LOWEST_TORCH)
	$(LOWEST)/bin/$(PIP_INSTALL) -c constraints-lowest.txt torch==$(LOWEST_TORCH) pytest -e '.[maze]'
	$(LOWEST)/bin/python -m pytest -p no:cacheprovider tests/test_contract.py tests/envs/test_learning.py

# Source archive and wheel into dist/; each is installed into a clean environment, where the example runs for few steps.
# For PyPI: REPOSITORY=https://github.com/OWNER/sb3-dqs, to which the README's links lead then
CLEAN := build/clean
SOURCE := build/source
dist: $(STAMP)
	rm -rf dist $(SOURCE) && mkdir -p $(SOURCE)
	git ls-files -z | xargs -0 cp --parents -t $(SOURCE)
	$(if $(REPOSITORY),$(BIN)/python docs/machinery/pypi.py $(SOURCE)/README.md $(REPOSITORY))
	$(BIN)/python -m build --outdir dist $(SOURCE)
	$(BIN)/twine check --strict dist/*
	for archive in $(CURDIR)/dist/*; do \
	    rm -rf $(CLEAN) && $(PYTHON) -m venv $(CLEAN) \
	    && $(CLEAN)/bin/$(PIP_INSTALL) -c $(CONSTRAINTS) torch \
	    && $(CLEAN)/bin/$(PIP_INSTALL) -c $(CONSTRAINTS) "$$archive[plots]" \
	    && $(CLEAN)/bin/python examples/train.py --steps 200 --episodes 1 --output build/runs || exit 1; \
	done
	rm -rf $(CLEAN)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(STAMP)
	$(BIN)/mypy

check-codestyle: lint

commit-checks: format type test

# Into site/; a warning, such as a broken link or cross-reference, is an error
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# In an environment of its own: cffconvert wants an older jsonschema than ours
CFFCONVERT := build/cffconvert
citation:
	test -x $(CFFCONVERT)/bin/cffconvert || $(PYTHON) -m venv $(CFFCONVERT)
	$(CFFCONVERT)/bin/pip install --quiet --disable-pip-version-check cffconvert==2.0.0
	$(CFFCONVERT)/bin/cffconvert --validate

clean:
	rm -rf $(VENV) $(LOWEST) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage*
