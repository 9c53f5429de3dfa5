# make help lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# compiled once, not by every process
UV := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: help demo dev test check tests rules types format lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(VENV)/runtime: requirements.lock setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@echo "Installing into $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV) -r requirements.lock
	@$(UV) --no-deps -e .
	@touch $@

$(VENV)/dev: requirements-dev.lock $(VENV)/runtime
	@echo "Installing the development tools …"
	@$(UV) -r requirements-dev.lock
	@touch $@

demo: $(VENV)/runtime  ## load the sample shop, refresh its last week, deliver to the local inbox, say what was done
	@$(BIN)/shopauto demo

dev: $(VENV)/runtime  ## open the Dagster UI on http://localhost:3000
	@DAGSTER_HOME="$(CURDIR)" PYTHONWARNINGS='ignore:Function `dev_command`' $(BIN)/dagster dev

test: rules  ## all checks and all tests, the quick ones first
	@$(MAKE) --no-print-directory --jobs 2 types tests  # mypy alone would keep one core busy for a minute

check: rules types  ## lint, format, which room may import which, and types

tests: $(VENV)/dev
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations 15

rules: $(VENV)/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/dev
	@$(BIN)/mypy

format: $(VENV)/dev  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(VENV)/runtime  ## pin what setup.py asks for
	@$(BIN)/uv pip compile setup.py --universal --python-version 3.11 --no-header --no-annotate -o requirements.lock
	@$(BIN)/uv pip compile setup.py --extra dev --universal --python-version 3.11 --no-header --no-annotate \
		-c requirements.lock -o requirements-dev.lock

clean:  ## remove the environment and everything stored
	@rm -rf $(VENV) .shopauto
