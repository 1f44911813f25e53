# Each target sets itself up: a virtual environment with the exact versions of constraints.txt, made once.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= python3

.PHONY: train test test-integration benchmark-smoke lint format check-format type check-codestyle commit-checks clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

train: $(STAMP)
	$(BIN)/python examples/train.py

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term --cov-fail-under=95

# Two algorithms, two environments, two seeds, few steps, and their report
benchmark-smoke: $(STAMP)
	rm -rf runs/benchmark-smoke
	$(BIN)/python -m benchmarks.run smoke --output runs/benchmark-smoke --jobs 2
	$(BIN)/python -m benchmarks.report smoke --output runs/benchmark-smoke

test-integration: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m integration --durations=0

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

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage*
