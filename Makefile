# `make demo`: set up and run a whole cycle on the sample lake. `make test`: set up, check and test.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check setup java clean

demo: setup
	@$(BIN)/quarry run_cycle --config demo --sample-lake build/demo/lake

test: check
	@$(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

setup: java $(READY)

java:
	@./java_check.sh

$(READY): setup.py constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.10 or newer is needed: install it, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON): a few minutes, about 6 GB, once"
	@$(PYTHON) -m venv $(VENV) || { echo "error: python3-venv is missing (Debian/Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/quarry fetch_jars
	@touch $@

clean:
	rm -rf build $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
