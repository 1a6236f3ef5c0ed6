# Everything sets itself up: the virtual environment in .venv is made on first use and again when a requirement changes.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help demo test pytest lint docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    pre-train and fine-tune dupmae-small on the bundled SciFact, and evaluate it (recipes/demo.yaml)"
	@echo "make test    lint, types and tests"
	@echo "make lint    lint and types only"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make bench   list the benchmarks; make bench NAME=... runs one"
	@echo "make clean   remove .venv and the caches (runs/ stays)"
	@echo "PIP_ARGS=... goes to pip when .venv is made, such as --extra-index-url URL of PyTorch's CPU builds"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "dupmae needs Python 3.11 or newer and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing dupmae and what it needs into .venv (once; PyTorch makes it a few minutes) ..."
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[demo,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/dupmae run recipes/demo.yaml

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate_keys.py --check

test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: export HF_HUB_OFFLINE = 1
pytest: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(STAMP)
	$(BIN)/mkdocs build --strict --quiet
	@echo "Written: site/overview.html"

bench: $(STAMP)
ifdef NAME
	$(BIN)/python benchmarks/$(NAME).py
else
	@echo "make bench NAME=... with one of:"; ls benchmarks/*/*.py | sed 's|benchmarks/|  |; s|\.py$$||'
endif

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
