# Verbs for people and CI alike. Each makes its environment by itself when it is missing.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
# One thread a process: results are equal to the bit only for equal thread counts.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test check bench docs clean

help: ## show the verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

$(VENV)/.installed: constraints.txt pyproject.toml
	@test -L fedpref/strategies || { echo "fedpref/strategies is not a symbolic link: this checkout was made without symlink support; clone with 'git clone -c core.symlinks=true'" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)" setuptools
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[offline,dev]'
	@touch $@

demo: $(VENV)/.installed ## run a small federation and write its report (under a minute, offline)
	$(BIN)/fedpref run experiment=demo

test: $(VENV)/.installed ## all tests that need no accelerator
	$(BIN)/python -m pytest -q -m 'not gpu' -n auto --dist loadfile --durations=10

check: $(VENV)/.installed ## lint, format, types, wheel contents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m wheel

bench: $(VENV)/.installed ## run the smoke tier of all suites and compare with what is expected (under three minutes)
	$(BIN)/fedpref bench --tier smoke --check

docs: $(VENV)/.installed ## build the documentation as a site of plain files, in site/
	$(BIN)/properdocs build -q --strict -f mkdocs.yml

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist site *.egg-info
