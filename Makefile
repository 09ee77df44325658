# Every target sets up what it needs. A second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format select-digits bench-softrank bench-train lock clean bench-augment docs-tables bench-every-method bench-mini test-matrix bench-losses bench-methods test-faults

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("rankdistill needs Python 3.11 or newer, found " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(INSTALLED)  ## Create .venv with the pinned, hash-checked packages

demo: $(INSTALLED)  ## Train a teacher and small students on real digits; table and page under runs/demo
	$(BIN)/rankdistill demo

test: $(INSTALLED)  ## Run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-matrix: $(INSTALLED)  ## Every setting on every pair of networks, of which `make test` has a part, and runs killed at every step (an hour)
	$(BIN)/python -m pytest tests/matrix tests/training/test_resume.py --whole-matrix

test-faults: $(INSTALLED)  ## Every reader of files on 5,000 inputs that are nearly right, of which `make test` has 100 (half an hour)
	$(BIN)/python -m pytest tests/faults --fuzz-inputs 5000 --numprocesses auto

lint: $(INSTALLED)  ## Check format, style, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(INSTALLED)  ## Format the code and apply the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

select-digits: $(INSTALLED)  ## Choose the digits recipes' settings on held-out images (45 minutes)
	$(BIN)/python benchmarks/select_digits.py

bench-softrank: $(INSTALLED)  ## Measure the soft-rank operator beside its peers
	$(BIN)/python benchmarks/softrank.py

bench-train: $(INSTALLED)  ## Measure a training step beside the peers' way
	$(BIN)/python benchmarks/train_step.py

bench-augment: $(INSTALLED)  ## Measure the augmentation beside Pillow
	$(BIN)/python benchmarks/augment.py

bench-losses: $(INSTALLED)  ## Measure losses on logits as shares of a training step
	$(BIN)/python benchmarks/losses.py

bench-methods: $(INSTALLED)  ## Measure every method's step and memory beside those of KD
	$(BIN)/python benchmarks/methods.py

docs-tables: $(INSTALLED)  ## Write the pages of docs/ that are made from the code and from measurements
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/costs.py
	$(BIN)/python benchmarks/mini_page.py

bench-every-method: $(INSTALLED)  ## Train by every method on a part of Tiny-ImageNet (DATA=its zip or folder)
	$(BIN)/python benchmarks/every_method.py $(DATA)

bench-mini: $(INSTALLED)  ## The equal-recipe benchmark, days of a CPU (DATA=tiny-imagenet-100.zip TEACHER=its resnet56; goes on)
	$(BIN)/python benchmarks/mini.py $(DATA) $(TEACHER) $(OPTIONS)

lock:  ## Renew requirements.lock (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --extra train --extra report --group pyproject.toml:dev --constraint constraints.txt \
	  --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:  ## Remove the environment and caches (runs/ stays)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
