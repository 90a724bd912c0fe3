VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
TESTS ?= tests
PYTEST_OPTIONS ?=
# Tests that run at the same time. Most tests wait, so this can be more than the number of cores.
SIDE_BY_SIDE ?= 3

.PHONY: setup demo check test lab bench lint docs clean widget

setup: $(VENV)/.installed

demo: setup
	$(BIN)/python -m temporal_airflow_nb.cli.demo

# All layers, or only the tests that TESTS=... names.
test: $(VENV)/.installed-test
ifeq ($(TESTS),tests)
	@$(MAKE) --no-print-directory check
	$(BIN)/python tools/run_tests.py -- $(PYTEST_OPTIONS)
else
	$(BIN)/python -m pytest --no-loadscope-reorder -n $(SIDE_BY_SIDE) $(PYTEST_OPTIONS) $(TESTS)
endif

lab: setup
	@$(BIN)/jupyter trust notebooks/*.ipynb >/dev/null # without trust, JupyterLab shows the saved grids without their style
	$(BIN)/jupyter lab --notebook-dir=notebooks

bench: setup
	$(BIN)/python benchmarks/run.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Checks and unit tests, which start no service and use no Airflow database: less than a minute. mypy runs in parallel.
check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy & mypy=$$!; $(BIN)/python -m pytest -n 2 $(PYTEST_OPTIONS) tests/unit; tests=$$?; wait $$mypy && exit $$tests

# Any warning, for example about a broken link or anchor, makes the build fail.
docs: $(VENV)/.installed-docs
	$(BIN)/python tools/build_docs.py site

# The built file is committed, so that only a change of the widget needs Node.js.
widget:
	cd temporal_airflow_nb/live_grid/frontend && npm ci --no-audit --no-fund --silent && npm run --silent build

clean:
	@if [ -x $(BIN)/temporal-airflow ]; then $(BIN)/temporal-airflow down; fi
	rm -rf $(VENV) .temporal_airflow build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache

# A shim with the name of an interpreter may not work, so each candidate is executed.
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

# Python files are compiled here, because an environment that can't write bytecode would compile them at each start.
define install
	@echo "$(VENV): installing $(1)"
	@if [ -n "$(UV)" ]; then $(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e '$(1)'; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '$(1)'; fi
	-@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib temporal_airflow_nb >/dev/null 2>&1
	@touch $@
endef

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.)

$(VENV)/.installed-test: $(VENV)/.installed
	$(call install,.[test$(comma)lint])

$(VENV)/.installed-docs: $(VENV)/.installed
	$(call install,.[docs])
