PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

EXPORT_VENV  := .venv-export
EXPORT_READY := $(EXPORT_VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run test test-export test-autobahn test-browser test-examples bench bench-engine lint fix docs clean

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lcm-realtime needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[cpu,dev]'
	@touch $@

setup: $(READY) ## everything that run and test need, into .venv

run: $(READY) ## demo site :8000, authsvc :8001, runner :8002 on the bundled model
	@$(BIN)/python -m deploy.develop

test: $(READY) ## the suite that needs neither torch nor a GPU
	$(BIN)/python -m pytest

test-browser: $(READY) ## the pages in a real Chromium
	$(BIN)/python -m pytest -m browser

test-autobahn: $(READY) ## the Autobahn WebSocket suite (needs a Python 2.7 on this machine)
	$(BIN)/python -m pytest -m autobahn -rs

test-examples: $(READY) ## the backends of examples/, installed and started (needs Node.js and registries)
	$(BIN)/python -m pytest -m examples tests/examples

# torch from PyPI brings gigabytes of CUDA on Linux; 2.13.0 spelled alone lets a local CPU build answer.
$(EXPORT_READY): pyproject.toml
	$(PYTHON) -m venv $(EXPORT_VENV)
	$(EXPORT_VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(EXPORT_VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[export,dev]'
	@touch $@

test-export: $(EXPORT_READY) ## the exporter against diffusers (installs torch into .venv-export)
	$(EXPORT_VENV)/bin/python -m pytest -m export tests/export tests/pocket tests/bench

bench: $(READY) ## the benchmarks that need neither torch nor a GPU; results go to bench/results
	$(BIN)/python -m bench.latency
	$(BIN)/python -m bench.admission
	$(BIN)/python -m bench.endurance
	$(BIN)/python -m bench.cpu_options
	$(BIN)/python -m bench.mint
	$(BIN)/python -m bench.measurements

bench-engine: $(EXPORT_READY) ## our engine against diffusers and optimum on the CPU
	$(EXPORT_VENV)/bin/python -m bench.engine
	$(EXPORT_VENV)/bin/python -m bench.measurements

lint: $(READY) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## write openapi.yaml, asyncapi.yaml, docs/settings.md and docs/measurements.md anew from code and results
	$(BIN)/python -m deploy.openapi
	$(BIN)/python -m deploy.asyncapi
	$(BIN)/python -m deploy.settings_reference
	$(BIN)/python -m bench.measurements

clean: ## forget .venv, .run and caches
	rm -rf $(VENV) $(EXPORT_VENV) .run .mypy_cache .ruff_cache .pytest_cache
