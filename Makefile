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

# Apart: what starts a whole Airflow needs both cores of a small machine for itself, and Playwright leaves an event loop
# running in the thread of the tests.
HEAVY := tests/airflow_hooks tests/production tests/stack/test_ui_stack.py tests/stack/test_rest_door.py \
	tests/test_binder.py tests/test_notebooks.py

test: $(VENV)/.installed-test
ifeq ($(TESTS),tests)
	$(BIN)/python -m pytest --no-loadscope-reorder -n $(SIDE_BY_SIDE) $(PYTEST_OPTIONS) tests $(HEAVY:%=--ignore=%) --ignore=tests/browser
	$(BIN)/python -m pytest --no-loadscope-reorder -n 2 $(PYTEST_OPTIONS) $(HEAVY)
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) tests/browser
else
	$(BIN)/python -m pytest --no-loadscope-reorder -n $(SIDE_BY_SIDE) $(PYTEST_OPTIONS) $(TESTS) --ignore=tests/browser
endif

lab: setup
	@$(BIN)/jupyter trust notebooks/*.ipynb >/dev/null # else the saved grids show without their style
	$(BIN)/jupyter lab --notebook-dir=notebooks

bench: setup
	$(BIN)/python benchmarks/run.py

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What needs no process and no Airflow database: seconds after an edit.
check: lint $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) tests/unit

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
	$(call install,.[test])

$(VENV)/.installed-lint: $(VENV)/.installed
	$(call install,.[lint])

$(VENV)/.installed-docs: $(VENV)/.installed
	$(call install,.[docs])
