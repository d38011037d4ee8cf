# Two commands: `make reproduce` sets up and verifies every claim; `make test` sets up and runs the tests.
# `make check` is the quick look before a commit: linters, types and the fast tests, two minutes.
# `make test-portable` runs the tests of numbers as other processors would (tests/portable.py); SETTING=generic THREADS=1 PARTS=claims
# chooses among them. `make test` ends with its short form.
# `make bench` times the kernels against peers and the machine's limit; `make bench QUICK=1` in about two minutes.
# `make test LM=0` does without torch, which the language models need and which is large; their tests are then skipped.
# JOBS=1: test processes, one a core where nothing else is said.
# PYTHON=python3.12 make ...  chooses the interpreter of the virtual environment in .venv.

PYTHON ?= python3
PRESET ?= quick
LM     ?= 1
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: reproduce test check test-portable lint bench clean
.DEFAULT_GOAL := reproduce

# Verify everything, write report/ whatever the verdicts, then return verify's status.
reproduce: $(VENV)/.run
	@$(BIN)/mdpsim verify --preset $(PRESET); status=$$?; \
	if [ $$status -ne 2 ] && [ $$status -ne 130 ]; then $(BIN)/mdpsim report --preset $(PRESET) --out report || exit 2; fi; \
	exit $$status

test: lint
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal
	$(BIN)/python tests/portable.py generic --short --threads 1 --jobs $(JOBS)

check: lint
	$(BIN)/python -m pytest --fast --numprocesses $(JOBS) --dist worksteal

test-portable: $(VENV)/.test $(if $(filter 0,$(LM)),,$(VENV)/.lm)
	$(BIN)/python tests/portable.py $(SETTING) $(if $(THREADS),--threads $(THREADS)) $(if $(PARTS),--parts $(PARTS)) --jobs $(JOBS)

lint: $(VENV)/.test $(if $(filter 0,$(LM)),,$(VENV)/.lm)
	$(BIN)/ruff check
	$(BIN)/pyright

bench: $(VENV)/.test
	@for script in benchmarks/speed/[!_]*.py; do \
	echo "== $$script"; $(BIN)/python $$script $(if $(QUICK),--quick) || exit 1; done
	@$(BIN)/python benchmarks/speed/_goals.py

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing mdpsim into $(VENV) (about a minute, once)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo "installing the test tools into $(VENV) (once)"
	@$(PIP) --editable '.[test,lint,gym]'
	@touch $@

$(VENV)/.lm: $(VENV)/.test
	@echo "installing torch into $(VENV) (once, several hundred MB or more; make test LM=0 does without)"
	@$(PIP) --editable '.[lm]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "mdpsim needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	{ echo "Python's venv module is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist report .mdpsim .pytest_cache .ruff_cache .hypothesis benchmarks/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
