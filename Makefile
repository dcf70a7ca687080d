# `make demo` and `make test` set everything up in .venv and say what they do.
# Both need Python 3.11 or newer, make and git, and the network for the packages.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo test test-tensorflow test-jax test-torch lint benchmark clean

help:
	@echo "make demo       set up, then train, evaluate, explain and export a classifier"
	@echo "make test       set up, then run all tests on TensorFlow, the layers' on JAX"
	@echo "make test-torch the layers' tests on torch, where it is installed"
	@echo "make lint       check style with ruff"
	@echo "make benchmark  measure steps, input pipeline and soft maximisers"
	@echo "make clean      remove $(VENV) and caches; runs/ and saved_models/ stay"

$(BIN)/python:
	@echo "== Making a virtual environment in $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it: make PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python setup.cfg pyproject.toml
	@echo "== Installing keras-attn and TensorFlow (about 2 GB on disk, minutes)"
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "== Installing what the tests need, with JAX as the second backend"
	@$(PIP) install --quiet --editable '.[test,dev,jax,datasets,figures,augment]'
	@touch $@

demo: $(VENV)/installed
	@echo "== Running the demo (under 4 minutes on 2 cores)"
	@$(BIN)/keras-attn demo

test: test-tensorflow test-jax test-torch
	@echo "== All tests passed"

test-tensorflow: $(VENV)/installed-test
	@echo "== All tests on TensorFlow"
	@KERAS_BACKEND=tensorflow $(BIN)/python -m pytest

test-jax: $(VENV)/installed-test
	@echo "== The tests of keras_attn on JAX"
	@KERAS_BACKEND=jax $(BIN)/python -m pytest tests/keras_attn

test-torch: $(VENV)/installed-test
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then \
	  echo "== The tests of keras_attn on torch"; \
	  KERAS_BACKEND=torch $(BIN)/python -m pytest tests/keras_attn; \
	else \
	  echo "== torch is not installed: its tests are left out ($(BIN)/pip install torch)"; \
	fi

lint: $(VENV)/installed-test
	@echo "== Style"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

benchmark: $(VENV)/installed-test
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info build dist
