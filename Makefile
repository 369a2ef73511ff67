# `make demo`: set up and run a whole cycle on the sample lake. `make test`: set up, check and test.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
FOREIGN := .venv-foreign
STUDIO := .venv-label-studio
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MANIFESTS := build/foreign-manifests
# Test processes side by side, each with a Spark session of up to 3 GB.
TEST_PROCESSES ?= 2
# A JVM of a test ends before optimizing its code pays, and so do plans made anew and code generated for a
# few rows (tests/spark): a cycle of 72 images takes half the processor time.
TEST_ENVIRONMENT := JAVA_TOOL_OPTIONS="-XX:TieredStopAtLevel=1" SPARK_CONF_DIR="$(CURDIR)/tests/spark"

.PHONY: demo test test-foreign test-label-studio check setup java clean

demo: setup
	@$(BIN)/quarry run_cycle --config demo --sample-lake build/demo/lake

test: check
	@$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
	@$(MAKE) --no-print-directory test-foreign

# Our manifests, read by parsers that are not ours, in an environment without our packages.
test-foreign: $(READY) $(FOREIGN)/.ready
	@$(BIN)/python -m tests.foreign.write_manifests $(MANIFESTS)
	@$(FOREIGN)/bin/python -m pytest -c tests/foreign/pytest.ini tests/foreign --manifests $(abspath $(MANIFESTS))

# Our manifests, out to a Label Studio server and back. No part of `make test`: the server is large.
test-label-studio: setup $(STUDIO)/.ready
	@$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -o addopts="-q --strict-markers --durations=8" \
		tests/label_studio --label-studio $(STUDIO)/bin/label-studio

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

$(FOREIGN)/.ready: tests/foreign/requirements.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: tests/foreign needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(FOREIGN) with $(PYTHON): about a minute, 630 MB, once"
	@rm -rf $(FOREIGN)
	@$(PYTHON) -m venv $(FOREIGN) || { echo "error: python3-venv is missing (Debian/Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@$(FOREIGN)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< || { \
		echo "error: the parsers of tests/foreign were not installed. They come from a package index: connect to one," \
			"or name a mirror (PIP_INDEX_URL=https://...), then run: make test-foreign" >&2; exit 2; }
	@touch $@

$(STUDIO)/.ready: tests/label_studio/requirements.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: tests/label_studio needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(STUDIO) with $(PYTHON): a few minutes, 1 GB, once"
	@rm -rf $(STUDIO)
	@$(PYTHON) -m venv $(STUDIO) || { echo "error: python3-venv is missing (Debian/Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@$(STUDIO)/bin/python -m pip install --quiet --disable-pip-version-check -r $< || { \
		echo "error: Label Studio was not installed. It comes from a package index: connect to one," \
			"or name a mirror (PIP_INDEX_URL=https://...), then run: make test-label-studio" >&2; exit 2; }
	@touch $@

clean:
	rm -rf build $(VENV) $(FOREIGN) $(STUDIO) *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
