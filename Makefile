# Everything works from a fresh clone with Python >= 3.11, make and a network; no root.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2 --dist loadfile

# The given Python if it is new enough, else the newest one on PATH, else the given one, whose error then shows.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
FOUND_PYTHON = $(shell for p in $(PYTHON) python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$p $(NEW_ENOUGH) >/dev/null 2>&1 && { echo $$p; exit 0; }; done; echo $(PYTHON))

.PHONY: help setup livekit demo serve test soak check lint types layers protos breaking verify generate format bench lock

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## build .venv from the lock and fetch the web assets; quick when nothing changed
	@$(FOUND_PYTHON) tools/bootstrap.py --venv $(VENV)

livekit: setup ## build the livekit-server that rooms need, once per machine; where it cannot be built it says why
	@$(BIN)/bax livekit install >/dev/null || true

demo: setup livekit ## start the server, run the tour, stay up (DEMO_EXIT=1: end with the tour's status)
	@$(BIN)/python -m tools.demo

serve: setup livekit ## start the server on its embedded defaults
	@$(BIN)/bax serve

# A few that failed are asked once more, alone, and named: see tests/again.py.
test: setup livekit ## run every test this machine can run (PYTEST_ARGS to change how)
	@$(BIN)/python -m pytest $(PYTEST_ARGS) || { [ $$? -eq 1 ] && $(BIN)/python -m pytest $(PYTEST_ARGS) -n 0 --lf -p tests.again; }

soak: setup livekit ## run what is too long for every day: a recording of SOAK_MINUTES (30), tests at full scale
	@$(BIN)/python -m benchmarks --only soak
	@SOAK=1 $(BIN)/python -m pytest -n 0 tests/e2e/test_livekit_outage.py tests/contract/test_claims_under_fire.py

check: lint types layers protos breaking verify ## all of the following up to verify; what CI runs before the tests

lint: setup ## format and lint rules (ruff)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup ## types (mypy, strict)
	$(BIN)/mypy

layers: setup ## which package may import which (import-linter)
	$(BIN)/lint-imports

protos: setup ## lint the protos (buf)
	$(BIN)/buf lint

breaking: setup ## fail if the protos break callers of main
	@$(BIN)/python -m tools.breaking

verify: setup ## fail if generated/ or docs/configuration.md is out of step with its source
	@$(BIN)/python -m tools.generate --check
	@$(BIN)/python -m tools.configuration_table --check

generate: setup ## regenerate generated/ from protos/, docs/configuration.md from the settings
	@$(BIN)/python -m tools.generate
	@$(BIN)/python -m tools.configuration_table

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## measure against the floor and write benchmarks/results.md
	@$(BIN)/python -m benchmarks

lock: setup ## resolve pyproject.toml again into the requirements files
	@$(BIN)/python -m tools.lock
