#!/bin/sh
# `./do demo` and `./do test` set everything up in .venv and print each step. They need
# Python 3.11 or newer with pip, and the network for the packages; nothing else.
set -eu
cd "$(dirname "$0")"

VENV=${VENV:-.venv}
BIN=$VENV/bin
# Test processes side by side; two keep two cores busy, and each takes up to 3 GB.
WORKERS=${WORKERS:-2}
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}" PYTHONUNBUFFERED=1

usage() {
  cat <<'TEXT'
./do demo        set up, then a trained network on photographs, and a short training
./do test        set up, then run all tests on TensorFlow, the layers' on JAX
./do test-torch  the layers' tests on torch, where it is installed
./do lint        check style with ruff and types with mypy
./do docs        build the documentation as a site
./do benchmark   measure speed and memory; see benchmarks/README.md
./do clean       remove the virtual environment and caches; runs/ and saved_models/ stay
TEXT
}

# environment MARKER REQUIREMENT: installs a requirement, again after setup.cfg changed.
environment() {
  if [ ! -x "$BIN/python" ]; then
    python=${PYTHON:-$(command -v python3.11 || command -v python3)}
    echo "== Making a virtual environment in $VENV with $python"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      { echo "Python 3.11 or newer is needed; name it: PYTHON=... ./do"; exit 1; }
    "$python" -m venv "$VENV"
  fi
  if [ "$VENV/$1" -nt setup.cfg ] && [ "$VENV/$1" -nt pyproject.toml ]; then
    return
  fi
  echo "== Installing $2 (about 2 GB on disk, minutes)"
  "$BIN/python" -m pip --disable-pip-version-check install --quiet --editable "$2"
  touch "$VENV/$1"
}

for_tests() {
  environment installed-test '.[train,test,dev,jax,datasets,figures,serving,onnx,view,docs]'
}

pytest() {
  KERAS_BACKEND=$1
  export KERAS_BACKEND
  shift
  "$BIN/python" -m pytest --numprocesses "$WORKERS" --dist loadfile \
    --no-loadscope-reorder "$@"
}

test_torch() {
  if "$BIN/python" -c 'import torch' 2>/dev/null; then
    echo "== The tests of keras_attn on torch"
    pytest torch tests/keras_attn
  else
    echo "== torch is not installed: its tests are left out ($BIN/pip install torch)"
  fi
}

case "${1:-help}" in
demo)
  environment installed '.[train,view,serving]'
  echo "== Running the demo (under 2 minutes on 2 cores)"
  "$BIN/keras-attn" demo
  ;;
test)
  for_tests
  echo "== All tests on TensorFlow"
  pytest tensorflow
  echo "== The tests of keras_attn on JAX"
  pytest jax tests/keras_attn
  test_torch
  echo "== All tests passed"
  ;;
test-torch)
  for_tests
  test_torch
  ;;
lint)
  for_tests
  echo "== Style and types"
  "$BIN/ruff" check .
  "$BIN/ruff" format --check .
  "$BIN/mypy"
  ;;
docs)
  environment installed-docs '.[docs]'
  NO_MKDOCS_2_WARNING=1 "$BIN/python" -m mkdocs build --strict
  echo "site/index.html; or: $BIN/mkdocs serve"
  ;;
benchmark)
  for_tests
  shift
  "$BIN/python" -m benchmarks "$@"
  ;;
clean)
  rm -rf "$VENV" .pytest_cache .ruff_cache ./*.egg-info build dist
  ;;
*)
  usage
  ;;
esac
