# `make demo` and `make test` set up what they need; a Python of 3.11 or newer is all that must be there before.
# Written for GNU make 3.81, which is what macOS has.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check clean

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

# PYTHON=... names the one interpreter to use; without it the first of these that really works is taken.
PYTHON ?=
CANDIDATES := $(if $(strip $(PYTHON)),"$(strip $(PYTHON))",python3.13 python3.12 python3.11 python3)

help: ## show this list
	@echo 'usage: make TARGET [ARGS="..."] [PYTHON=/path/to/python3]'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-6s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.local ## a whole change on real servers on this machine; ARGS go to `parallelchange demo`
	@$(VENV)/bin/parallelchange demo $(ARGS)

# Two workers: the demos wait more than they work, and stay together in one.
# Control plane and Prometheus are built once, before pytest counts anybody's time; where they cannot be, tests say so.
test: $(VENV)/.dev ## every test; ARGS go to pytest
	@PYTHONPATH=tests $(PY) -m helpers.controlplane
	@PYTHONPATH=tests $(PY) -m helpers.prometheus
	@$(PY) -m pytest -n 2 --dist loadgroup $(ARGS)

check: $(VENV)/.dev ## lint, format, types and layers
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# .parallelchange is left alone: it may hold the data of servers that are still running.
clean: ## remove the virtual environment, caches and builds
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each candidate is tried by running it: a name on the PATH may be a shim with nothing behind it, and a
# Python may have come without its venv module. A half-made environment is removed, or the next run would use it.
$(PY):
	@lacking=; \
	for candidate in $(CANDIDATES); do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if why=$$("$$candidate" -m venv --clear $(VENV) 2>&1); then \
	    echo "Made $(VENV) with $$("$$candidate" --version) ($$candidate)."; \
	    exit 0; \
	  fi; \
	  rm -rf $(VENV); \
	  lacking="$$lacking $$candidate"; \
	done; \
	if [ -n "$$lacking" ]; then \
	  echo "No virtual environment could be made in $(VENV): \`-m venv\` fails with$$lacking." >&2; \
	  echo "$$why" | sed 's/^/  | /' >&2; \
	  echo "Most often the venv module is missing: install it (Debian and Ubuntu: apt install python3-venv)" >&2; \
	  echo "and run make again, or name another Python: make PYTHON=/path/to/python3 ..." >&2; \
	else \
	  echo "No Python 3.11 or newer runs here; tried:" $(CANDIDATES) >&2; \
	  echo "Install one and run make again, or name it: make PYTHON=/path/to/python3 ..." >&2; \
	fi; \
	exit 1

# The stamps are what makes a second run start at once; they are as old as the pyproject.toml they stand for.
$(VENV)/.local: pyproject.toml | $(PY)
	@echo 'Installing parallelchange and its local servers into $(VENV) (once; some minutes on a slow line).'
	@$(PIP) install --editable '.[local]'
	@touch $@

# Dependency groups need pip 25.1; Python 3.11 comes with an older one.
$(VENV)/.dev: $(VENV)/.local
	@echo 'Installing the development tools into $(VENV).'
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --group dev
	@touch $@
