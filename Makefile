# fgvc-bench. Two commands set up everything on a fresh machine:
#   make demo    environment, then the default suite: a table and a figure in results/
#   make test    environment, then all tests
# Others: make env | test-all | lint | bench | clean. CORES=8 make demo uses eight cores.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CORES  ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
STAMP  := $(VENV)/.installed

.PHONY: env demo test test-all lint bench clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -5

env: $(STAMP)

# Every version is pinned in requirements.lock; the package itself is installed in place.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=…"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned packages into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: env
	@$(BIN)/snakemake --cores $(CORES)
	@echo && cat results/tables/sota_224.md

# All but the tests marked exhaustive: under 25 minutes on two cores.
test: env
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not exhaustive"

test-all: env
	@$(BIN)/python -m pytest -n 2 --dist worksteal

lint: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/snakefmt --check --line-length 100 Snakefile rules
	@$(BIN)/snakemake --lint
	@$(BIN)/fgvc schema --check

bench: env
	@$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .snakemake logs benchmarks/jobs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@echo "results/, data/ and state/ are kept; remove them yourself if you mean it"
