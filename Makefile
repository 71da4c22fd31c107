# make run                             see it work: clipmux demo
# make run VIDEOS=folder MODEL=folder  classify your own videos
# make test                            every check: ruff, mypy, pytest
# make dev                             an editable install that editors can follow
# Nothing is needed but make and Python 3.10 or newer with venv; all else goes into .venv.

PYTHON ?= python3
VIDEOS ?=
MODEL ?= demo
OUTPUT ?= runs/$(shell date +%Y%m%d-%H%M%S)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PACKAGES := engine workers build bench
SOURCES := $(shell find $(PACKAGES) -type f -not -path '*/__pycache__/*' -not -path 'build/__editable__*')
DECLARED := setup.cfg pyproject.toml constraints.txt

.PHONY: run test lint types unit dev clean

run: .venv/installed
ifeq ($(VIDEOS),)
	$(BIN)/clipmux demo
else
	$(BIN)/clipmux run "$(VIDEOS)" --model "$(MODEL)" --output "$(OUTPUT)"
endif

test: lint types unit

lint: .venv/checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/checks .venv/installed
	$(BIN)/mypy $(PACKAGES:%=-p clipmux.%)

unit: .venv/checks .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal  # a worker per core: no threads besides

dev: .venv/checks
	rm -rf build/__editable__*
	$(PIP) install --constraint constraints.txt --editable '.[torch,quantize,dev]' --config-settings editable_mode=strict
	touch .venv/installed

clean:
	rm -rf .venv .setuptools build/__editable__* *.egg-info runs .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "clipmux needs Python 3.10 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	touch $@

# What clipmux needs to run, then (again whenever it changed) clipmux itself.
.venv/needed: .venv/python $(DECLARED)
	rm -rf .setuptools
	$(PIP) install --constraint constraints.txt .
	touch $@

.venv/installed: .venv/needed $(SOURCES)
	rm -rf .setuptools
	$(PIP) install --no-deps --force-reinstall .
	touch $@

.venv/checks: .venv/needed
	$(PIP) install --constraint constraints.txt '.[torch,quantize,dev]'
	touch $@
