# Needs Python 3.11 or newer and a package index (PyPI). Everything else is installed into .venv by the targets themselves.

SHELL := /bin/bash
PYTHON ?= python3
TEACHER ?= tiny
BIN := .venv/bin
INSTALLED := .venv/installed
DOCS := .venv/installed-docs

# What the user names reaches the shell as environment variables, letter for letter: spaces, quotes and $ are safe.
override export IMAGES := $(value IMAGES)
override export STORE := $(value STORE)
override export TEACHER := $(value TEACHER)

.PHONY: help setup demo label test lint check docs bench faults clean label-arguments
.DEFAULT_GOAL := help

help:
	@echo 'make setup                          create .venv and install depthsieve and its tools into it'
	@echo 'make demo                           the whole way on rendered scenes; ends with the page to open'
	@echo 'make label IMAGES=photos STORE=labels [TEACHER=tiny] [ARGS="--batch-size 4"]'
	@echo '                                    label your own images; run it again to go on, or to add new ones'
	@echo 'make test [ARGS="-k store"]         run the tests'
	@echo 'make check                          linters, types and tests: the gate that CI runs'
	@echo 'make docs                           build the documentation: open site/index.html'
	@echo 'make bench [IMAGES=photos]          measure speed; needs no GPU and no network'
	@echo 'make faults [ARGS="--faults 200 --seed 0"]   kill, starve and damage real runs, and compare every byte'
	@echo 'make clean                          remove .venv, demo/, dist/, site/ and caches; never your own stores'

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	    echo 'depthsieve needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11 setup' >&2; exit 1; }
	@echo 'Setting up .venv: torch, transformers, ray and the tools take some minutes the first time.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-dev.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/depthsieve demo --out demo $(ARGS)

label: label-arguments setup
	@$(BIN)/depthsieve label "$${IMAGES/#\~\//$$HOME/}" "$${STORE/#\~\//$$HOME/}" --teacher "$$TEACHER" $(ARGS)

label-arguments:
	@if [ -z "$$IMAGES" ] || [ -z "$$STORE" ]; then \
	    echo 'usage: make label IMAGES=folder STORE=folder [TEACHER=tiny] [ARGS="..."]' >&2; exit 2; fi

test: setup
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: setup
	$(BIN)/ruff check pipeline cli tests benchmarks tools
	$(BIN)/ruff format --check pipeline cli tests benchmarks tools
	$(BIN)/mypy

check: lint test

docs: $(DOCS)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d .venv/doctrees docs site
	@echo 'Open site/index.html'

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-dev.txt --editable '.[docs]'
	@touch $@

bench: setup
	$(BIN)/python benchmarks/throughput.py $${IMAGES:+"$$IMAGES"} $(ARGS)

faults: setup
	PYTHONPATH=tests:tests/support $(BIN)/python -m faults $(ARGS)

clean:
	rm -rf .venv build dist demo site jupyter_execute .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find pipeline cli tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +
