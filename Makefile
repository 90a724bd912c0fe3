VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
TESTS ?= tests
PYTEST_OPTIONS ?=
# Most tests wait for something: more of them than there are cores can run at a time.
SIDE_BY_SIDE ?= 3

.PHONY: setup demo check test lab bench lint docs clean widget

setup: $(VENV)/.installed

demo: setup
	$(BIN)/python -m temporal_airflow_nb.cli.demo

# All layers; with TESTS=..., some tests alone.
test: $(VENV)/.installed-test
ifeq ($(TESTS),tests)
	@$(MAKE) --no-print-directory check
	$(BIN)/python tools/run_tests.py -- $(PYTEST_OPTIONS)
else
	$(BIN)/python -m pytest --no-loadscope-reorder -n $(SIDE_BY_SIDE) $(PYTEST_OPTIONS) $(TESTS)
endif

lab: setup
	@$(BIN)/jupyter trust notebooks/*.ipynb >/dev/null # else the saved grids show without their style
	$(BIN)/jupyter lab --notebook-dir=notebooks

bench: setup
	$(BIN)/python benchmarks/run.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What needs no process and no Airflow database: less than a minute. mypy runs beside the tests.
check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy & mypy=$$!; $(BIN)/python -m pytest $(PYTEST_OPTIONS) tests/unit; tests=$$?; wait $$mypy && exit $$tests

# Any warning, such as of a broken link or anchor, fails it.
docs: $(VENV)/.installed-docs
	$(BIN)/python tools/build_docs.py site

# The built file is committed, so only who changes the widget needs node.
widget:
	cd temporal_airflow_nb/live_grid/frontend && npm ci --no-audit --no-fund --silent && npm run --silent build

clean:
	@if [ -x $(BIN)/temporal-airflow ]; then $(BIN)/temporal-airflow down; fi
	rm -rf $(VENV) .temporal_airflow build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache

# A shim that answers to a name isn't yet an interpreter: each candidate is run.
define find_python
for candidate in $(PYTHON) python3 python3.12 python3.11 python3.13 python3.10; do \
	if $$candidate -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' \
		>/dev/null 2>&1; then echo $$candidate; exit 0; fi; \
done; \
echo "No Python from 3.10 to 3.13 found: install one, or name it with 'make PYTHON=...'." >&2; exit 1
endef

$(BIN)/python:
	@set -e; python=$$($(find_python)); echo "$(VENV) with $$python"; \
	if [ -n "$(UV)" ]; then $(UV) venv --quiet --allow-existing --python "$$(command -v $$python)" $(VENV); \
	else $$python -m venv $(VENV); fi

comma := ,

# Compiled once here: where Python may not write bytecode, every start of Airflow would compile it anew.
define install
	@echo "$(VENV): installing $(1)"
	@if [ -n "$(UV)" ]; then $(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e '$(1)'; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '$(1)'; fi
	-@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1
	@touch $@
endef

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.)

$(VENV)/.installed-test: $(VENV)/.installed
	$(call install,.[test$(comma)lint])

$(VENV)/.installed-docs: $(VENV)/.installed
	$(call install,.[docs])
