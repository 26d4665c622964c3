# Every target sets itself up: a virtual environment in .venv, from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-report simulations-test check format tables deploy-flower deploy-ray clean

help:  ## what there is to do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 16

demo: .venv/ready  ## train a family on handwritten digits and make it forget one
	$(BIN)/fedunlearn demo

test: check  ## every check that CI runs
	$(BIN)/pytest -n 2 -m "not slow and not browser"

test-report: .venv/ready  ## open reports in a headless Chromium: no network, no errors, accessible, big ones quick (needs chromium)
	$(BIN)/python -c "import playwright" || $(BIN)/python -m pip install --quiet --constraint constraints.txt --group report
	$(BIN)/pytest tests/report -m browser -rs

simulations-test: .venv/ready  ## every simulation at its test size (CI runs them with the other tests, but for two Flower deployments)
	$(BIN)/pytest -n 2 tests/simulations

check: .venv/ready  ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready  ## put the code in its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: .venv/ready  ## put the results of the simulations into the documents (fails on a number that is in none), and a topology's keys
	$(BIN)/python simulations/tables.py
	$(BIN)/python topologies/reference.py

deploy-flower: .venv/ready  ## a Flower deployment on 127.0.0.1, with TLS and authenticated sites: train, forget, roll back, show
	$(BIN)/python docker/loopback.py flower

deploy-ray: .venv/ready  ## the same on a Ray cluster of several nodes, in a network namespace of its own
	$(BIN)/python -c "import ray" || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(BIN)/python docker/loopback.py ray

clean:  ## remove what was made here, but no family in runs/
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@
