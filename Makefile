# The two commands are `make demo` and `make test`; both build .venv first and need only Python 3.11 and pip.
PYTHON ?= python3.11
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
PYTHON := python
endif
STAMP := .venv/.installed

.PHONY: demo test test-slow lint bench clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -c "import pathlib; pathlib.Path('$(STAMP)').touch()"

demo: $(STAMP)
	$(BIN)/python tools/train_mesh.py

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"
	$(BIN)/lint-imports

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python tools/bench.py body out=bench_body.json
	$(BIN)/python tools/bench.py render out=bench_render.json
	$(BIN)/python tools/bench.py backbone out=bench_backbone.json

clean:
	rm -rf outputs .pytest_cache .mypy_cache .ruff_cache
