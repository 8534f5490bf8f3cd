PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

EXPORT_VENV  := .venv-export
EXPORT_READY := $(EXPORT_VENV)/.ready

FAL_VENV  := .venv-fal
FAL_READY := $(FAL_VENV)/.ready

FUZZ_VENV  := .venv-fuzz
FUZZ_READY := $(FUZZ_VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run test test-export test-autobahn test-browser test-examples test-conformance fuzz bench bench-engine bench-gateway soak lint fix docs clean

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

# fal's SDK pins what ours does not: it gets an environment of its own, with the versions that were compared.
$(FAL_READY): tests/conformance/requirements.txt
	$(PYTHON) -m venv $(FAL_VENV)
	$(FAL_VENV)/bin/pip install --quiet --disable-pip-version-check --requirement tests/conformance/requirements.txt
	@touch $@

test-conformance: $(READY) $(FAL_READY) ## the conformance suite against ours and fal's SDK (installs it into .venv-fal)
	$(BIN)/python -m pytest -m 'conformance or not conformance' tests/conformance tests/e2e/test_http_over_websocket.py

$(FUZZ_READY): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[cpu,dev]' atheris==3.0.0
	@touch $@

fuzz: $(FUZZ_READY) ## every parser of the network's bytes, ten minutes each under atheris (installs it into .venv-fuzz)
	$(FUZZ_VENV)/bin/python -m tests.fuzz all --seconds 600

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

bench-gateway: $(READY) $(FAL_READY) ## our gateway against fal's SDK, and how late its hub is
	$(BIN)/python -m bench.gateway
	$(BIN)/python -m bench.hub_tick
	$(BIN)/python -m bench.measurements

soak: $(READY) ## half an hour of 200 connections, some of them hostile: answers, and what grows
	$(BIN)/python -m bench.soak
	$(BIN)/python -m bench.measurements

lint: $(READY) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## write openapi.yaml, asyncapi.yaml, docs/settings.md, docs/conformance.md and docs/measurements.md anew from code and results
	$(BIN)/python -m deploy.openapi
	$(BIN)/python -m deploy.asyncapi
	$(BIN)/python -m deploy.settings_reference
	$(BIN)/python -m bench.measurements
	$(BIN)/python -m tests.conformance.table

clean: ## forget .venv, .run and caches
	rm -rf $(VENV) $(EXPORT_VENV) $(FAL_VENV) .run .mypy_cache .ruff_cache .pytest_cache
