# Everything runs in .venv, which the first target that needs it sets up. PYTHON names another interpreter.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Two workers of one thread each: on small models more threads cost more than they give.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: help dev demo test test-all lint format docs clean

help:
	@echo "make demo      inspect a clean and a backdoored delivery; reports in clipvet-report/"
	@echo "make test      all tests but the slow ones"
	@echo "make test-all  the slow ones too"
	@echo "make lint      ruff and mypy"
	@echo "make format    ruff format, and what ruff can mend"
	@echo "make docs      write the generated pages of docs/"
	@echo "make dev       set up .venv and the pre-commit hooks"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "expected Python 3.11 or newer, found $$($(PYTHON) --version): name another with PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "no virtual environment could be made: install Python's venv module (Debian: apt install python3-venv)"; exit 1; }
	@echo "Installing clipvet and what it needs into .venv; this takes some minutes the first time."
	@$(PIP) -c constraints.txt -e ".[dev]"
	@touch $@

dev: $(STAMP)
	@git rev-parse --git-dir >/dev/null 2>&1 && $(BIN)/pre-commit install || true

demo: $(STAMP)
	$(BIN)/clipvet demo --out clipvet-report

test: $(STAMP)
	$(TEST) -m "not slow and not gpu and not weights"

test-all: $(STAMP)
	$(TEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/python docs/build.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis clipvet-report
