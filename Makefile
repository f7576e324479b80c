# The two commands of the README: make demo, make test. Everything they need is installed in .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: help demo test check lint types unit services clean

help:
	@echo "make demo    simulate a genome, train DanQ in two pipeline stages, compare, log (minutes)"
	@echo "make test    install what is needed, then lint, types and all tests"
	@echo "make check   lint, types and all tests (lint, types, unit: one of them)"
	@echo "make clean   remove the environment and what the demo made"

demo: .venv/.installed
	$(BIN)/replisome demo

test: .venv/.installed services check

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

# Some tests look at the MLflow page in a real browser, some start a PostgreSQL server. As root on
# Debian (a container, CI) both are installed; elsewhere those tests are skipped where they are not.
services:
	@missing=""; \
	command -v chromium > /dev/null || command -v chromium-browser > /dev/null || \
		command -v google-chrome > /dev/null || missing="chromium"; \
	command -v pg_ctl > /dev/null || ls /usr/lib/postgresql/*/bin/pg_ctl > /dev/null 2>&1 || \
		missing="$$missing postgresql"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing > /dev/null; \
	else \
		echo "not here: $$missing; tests that need it are skipped (Debian: apt install $$missing)"; \
	fi

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
