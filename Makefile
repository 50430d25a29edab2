# The targets need Python, git and make; each makes its own virtual environment.
PYTHON ?= python3
PYTEST_ARGS ?= -m "not slow" -n 2
DEMO_ARGS ?=
SPHINX_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.bench-installed
DOCS_INSTALLED := $(VENV)/.docs-installed

.PHONY: test demo lint bench-quick docs clean

test: $(INSTALLED)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

demo: $(INSTALLED)
	$(BIN)/python -m ridgemm demo $(DEMO_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench-quick: $(BENCH_INSTALLED)
	$(BIN)/python -m bench peers-square --quick

docs: $(DOCS_INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -q $(SPHINX_ARGS) -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(INSTALLED): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,plot]'
	touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf docs/_build docs/auto_examples docs/generated
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
