# make demo         set up what a device needs; replay the packaged recording through the packaged model
# make test         set up what development needs; run every test
# make test-fast    the tests that a developer runs all day
# make test-device  the runtime's tests as on a device: no torch, oldest and newest Python that is installed
# make test-aarch64  as root, half an hour: a Debian for arm64 under emulation: make demo, the tests of events and
#                   runtime that are not slow, predictions beside this machine's; docs/guides/jetson.md has the results
# make fuzz         spoilt files, texts and requests of every kind for 10 minutes; MINUTES=300 for hours
# make chaos        a live run for 30 minutes while all that it depends on fails; MINUTES=3
# make peers        as root: what tests meet on the other side, from Debian (.ci/install-peers)
# make check        formatting, lint, types, layers, the documentation as a site
# make site         the documentation as a site, into site/: site/index.html opens from the folder
# make help-texts  what every --help prints, into tests/cli/help, which a test compares: after a change on purpose
# make screenshots  the pictures of README and guides, by the tests that take them in a headless Chromium
# make gpu-check    on a machine with Python, torch and an NVIDIA GPU: every backend side by side in six minutes, then the
#                   tests of a GPU, into benchmarks/results/gpu.md. WHEELS=DIR: install from there;
#                   GPU_CHECK="--graphs DIR": what `gpu_check.py --prepare DIR` made before, on a CPU
# make demo-model   train the packaged model anew, on a CPU of 4 cores in less than half an hour
# make setup        .venv with everything that development needs
# make clean        remove what these made
PYTHON ?= python3
VENV   := .venv
DEMO   := .venv-demo
GPU    := .venv-gpu
PIP    := -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := -m pytest -n auto --dist worksteal
DEVICE_PYTHONS := 3.10 3.13
DEVICE_TESTS   := tests/events tests/preprocessing tests/runtime tests/cli/live tests/test_*.py

.PHONY: help setup setup-device demo demo-model test test-fast test-device test-aarch64 fuzz chaos peers check site help-texts screenshots gpu-check clean
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
	$(VENV)/bin/python $(PYTEST)

test-fast: setup
	$(VENV)/bin/python $(PYTEST) -m 'not slow'

setup-device: $(DEVICE_PYTHONS:%=.venv-%/.ready)

.PRECIOUS: .venv-%/.ready
.venv-%/.ready: pyproject.toml constraints.txt
	@for python in python$* "$$(pyenv root 2>/dev/null)"/versions/$*.*/bin/python; do \
	  $$python -c '' 2>/dev/null || continue; \
	  test -x .venv-$*/bin/python || $$python -m venv .venv-$* || exit 1; \
	  .venv-$*/bin/python $(PIP) -e '.[cpu,test]' || exit 1; \
	  exec touch $@; \
	done; echo "Python $* is not installed: its tests are left out"

test-device: $(DEVICE_PYTHONS:%=test-device-%)

test-device-%: .venv-%/.ready
	@test ! -x .venv-$*/bin/python || .venv-$*/bin/python $(PYTEST) -m 'not slow' $(DEVICE_TESTS)

test-aarch64:
	.ci/test-aarch64 $(PHASES)

# atheris has wheels for Linux on x86-64; without it, files are spoilt at random.
fuzz: setup
	-$(VENV)/bin/python $(PIP) 'atheris>=3' 2>/dev/null
	$(VENV)/bin/python -m tests.fuzz --seconds $$(( 60 * $(or $(MINUTES),10) )) $(FUZZ)

chaos: setup
	$(VENV)/bin/python -m tests.chaos --minutes $(or $(MINUTES),30) $(CHAOS)

peers:
	.ci/install-peers

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(MAKE) --no-print-directory site

site: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

help-texts: setup
	$(VENV)/bin/python -m tests.cli.help_texts

screenshots: setup
	VELORA_SCREENSHOTS=docs/images $(VENV)/bin/python -m pytest -q -n 0 tests/runtime/web -k screenshot

gpu-check:
	$(PYTHON) benchmarks/gpu_setup.py $(GPU) $(if $(WHEELS),--wheels $(WHEELS))
	$(GPU)/bin/python benchmarks/gpu_check.py $(GPU_CHECK)

demo-model: setup
	$(VENV)/bin/velora pretrain configs/demo_pretrain.yaml --overwrite
	$(VENV)/bin/velora train configs/demo.yaml --overwrite
	$(VENV)/bin/velora eval runs/demo_model/best --data synthetic --ablate
	$(VENV)/bin/velora export runs/demo_model/best velora_edge/assets/demo.velora --name demo --overwrite

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache site
