# The two commands of the README: make demo, make test. Everything they need is installed in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: help demo test check lint types unit browser clean

help:
	@echo "make demo    simulate a genome, train DanQ in two pipeline stages, compare, log (minutes)"
	@echo "make test    install what is needed, then lint, types and all tests"
	@echo "make check   lint, types and all tests (lint, types, unit: one of them)"
	@echo "make clean   remove the environment and what the demo made"

demo: .venv/.installed
	$(BIN)/replisome demo

test: .venv/.installed browser check

check: lint types unit

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed
	$(BIN)/mypy

unit: .venv/.installed
	$(BIN)/python -m pytest

# torch comes first and alone: asked for together with the rest, pip may choose another build of it.
.venv/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "replisome needs Python 3.11; say where it is: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into .venv (some minutes, 2 to 3 GB)"
	"$(PYTHON)" -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# One test looks at the MLflow page in a real browser. As root on Debian (a container, CI) it is
# installed; elsewhere that test is skipped where there is none.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name > /dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && apt-get install -y -qq chromium > /dev/null; \
	else \
		echo "no Chromium here: the test of the MLflow page is skipped (Debian: apt install chromium)"; \
	fi

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
