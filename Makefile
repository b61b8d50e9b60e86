# make demo   set up what a device needs, replay the packaged recording
# make test   set up what development needs, run the tests
# make check  formatting, lint, types, layers
PYTHON ?= python3
VENV   := .venv
DEMO   := .venv-demo
PIP    := -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test test-fast check clean help
help:
	@sed -n 's/^# //p' Makefile

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) -e '.[cpu,train,dev]'
	touch $@

$(DEMO)/.ready: pyproject.toml constraints.txt
	test -x $(DEMO)/bin/python || $(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) -e '.[cpu]'
	touch $@

setup: $(VENV)/.ready

demo: $(DEMO)/.ready
	$(DEMO)/bin/velora demo

test: setup
	$(VENV)/bin/python -m pytest -n auto --dist worksteal

test-fast: setup
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -m 'not slow'

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
