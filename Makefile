PY ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test check unit clean

$(VENV)/.ready: pyproject.toml
	$(PY) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.ready
	$(BIN)/pip install --quiet --editable '.[dev]'
	sh tests/setup.sh
	touch $@

install: $(VENV)/.ready

demo: $(VENV)/.ready
	$(BIN)/leptonai demo

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/pytest

test: check unit

clean:
	rm -rf $(VENV)
