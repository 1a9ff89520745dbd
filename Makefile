# The two commands are `make demo` and `make test`; both build .venv first and need only Python 3.11 and pip.
PYTHON ?= python3.11
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
PYTHON := python
endif
# Threads that wait for each other at barriers give the processor away: on a shared machine the difference is large.
export OMP_WAIT_POLICY ?= PASSIVE
RUNTIME := .venv/.runtime-installed
DEV := .venv/.dev-installed
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow lint bench clean
.DEFAULT_GOAL := demo

.venv:
	$(PYTHON) -m venv .venv

$(RUNTIME): pyproject.toml constraints.txt | .venv
	$(PIP) -e .
	$(BIN)/python -c "open('$@', 'w').close()"

$(DEV): pyproject.toml constraints.txt | .venv
	$(PIP) -e ".[dev]"
	$(BIN)/python -c "open('$@', 'w').close()"

demo: $(RUNTIME)
	$(BIN)/python tools/train_mesh.py

test: $(DEV)
	$(BIN)/python -m pytest -m "not slow"
	$(BIN)/lint-imports

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow --durations=10

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV)
	$(BIN)/python tools/bench.py body out=bench_body.json
	$(BIN)/python tools/bench.py render out=bench_render.json
	$(BIN)/python tools/bench.py backbone out=bench_backbone.json
	$(BIN)/python tools/bench.py eval out=bench_eval.json

clean:
	rm -rf outputs .pytest_cache .mypy_cache .ruff_cache
