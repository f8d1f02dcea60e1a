# `make verify` and `make test` do everything on a fresh machine: each makes .venv and installs what it needs.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first interpreter that is new enough; override with `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help verify verify-full evidence figures test test-all test-long docs formal mutants lint clean

help:
	@echo "make verify       prove, compute and simulate every claim; audit real hidden states; report in out/report"
	@echo "make verify-full  the same with long simulations"
	@echo "make evidence     every study of simulations/ at its quick size, against its laws; resumes from out/evidence"
	@echo "make figures      the figures, from stored results, in out/figures"
	@echo "make test         the test suite"
	@echo "make test-all     the same with everything that it can use installed: peers, Triton, the site, a browser, Coq"
	@echo "make test-long    the tests that take minutes"
	@echo "make docs         the documentation, with every claim's proof, as a site in out/docs"
	@echo "make formal       Coq proofs of the exact laws and scalar lemmas, where Coq is installed"
	@echo "make mutants      alter each operator and number of the rules: the tests must notice (long)"
	@echo "make lint         ruff and mypy"
	@echo "make clean        remove the environment and everything generated"

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or run make PYTHON=/path/to/python" >&2; exit 2; }
	@echo "installing into $(VENV): a few minutes, the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

verify: $(STAMP)
	$(BIN)/resonance verify --quick --workers auto --report out/report

verify-full: $(STAMP)
	$(BIN)/resonance verify --full --workers auto --report out/report-full

# goes on where an earlier run stopped, unless settings or code have changed; fails if a study fails, not where so few runs of
# a training leave a comparison undecided, nor where what a study needs is not here (both are said)
evidence: $(STAMP)
	@mkdir -p out/evidence
	$(BIN)/resonance simulate --all --quick --workers auto --store out/evidence --resume --json out/evidence/studies.json

figures: $(STAMP)
	$(BIN)/resonance figures

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=10

# Debian's browser and Coq, where they can be had; then only tests that need a GPU may be skipped
$(VENV)/.all: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs,peers,triton]'
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  command -v chromium >/dev/null && command -v coqc >/dev/null || { apt-get update -qq && \
	  apt-get install -y -qq chromium coq libcoq-coquelicot libcoq-interval >/dev/null; }; fi
	@touch $@

test-all: $(VENV)/.all
	RESONANCE_TEST_ALL=1 $(BIN)/python -m pytest -n auto --dist worksteal --durations=10

test-long: $(STAMP)
	$(BIN)/python -m pytest -m long --durations=10

# a separate stamp: nothing else needs the site's generator
$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

# with the evidence of the last `make verify`, if there is one
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "out/docs/index.html"

formal: $(STAMP)
	$(BIN)/python proofs/formal/check.py

# keeps its results in out/mutants and goes on from there; one module: $(BIN)/python -m tests.mutants _law
# (the geometry, 40 minutes on one core, only so: $(BIN)/python -m tests.mutants sphere)
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) out build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
