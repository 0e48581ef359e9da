# The five things one does. `make test FILES=tests/data` runs some of the tests.
PYTHON ?= python3
BIN := .venv/bin
FILES ?=

.PHONY: install test check docs ci

install:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -e '.[dev]'

test:
	$(BIN)/python -m pytest -n 2 $(FILES)

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: # in an environment of its own: sources are read, not imported
	test -x .venv-docs/bin/mkdocs || { $(PYTHON) -m venv .venv-docs && .venv-docs/bin/pip install 'mkdocs-material>=9.8.2' 'mkdocstrings[python]>=1.0.8'; }
	.venv-docs/bin/mkdocs build --strict

ci:
	.ci/run
