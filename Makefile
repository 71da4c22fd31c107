# make run                             see it work: clipmux demo
# make run VIDEOS=folder MODEL=folder  classify your own videos
# make test                            every check: ruff, mypy, pytest
# make unit PINS=                      the tests with the newest version of all that clipmux needs, in a clone of its own
# make bench [VIDEOS=folder]           the measurements of docs/benchmarks.md, for some hours, into runs/bench
# make live-faults                     cameras that fail, for some minutes, as root (a network link is cut)
# make live-soak                       eight hours of streams in some minutes: nothing grows
# make chaos [MINUTES=30] [SEED=1]     random faults in random processes; docs/reliability.md
# make soak [MINUTES=60]               memory and descriptors of a long run at full load
# make mutants                         2,000 spoilt videos of every container through a run, as root for the watching
# make far-hosts                       decoder hosts in networks of their own, whose links fail, as root
# make ray                             a Ray cluster of three nodes here, one of which is lost
# make fuzz                            a million foreign headers, and documents, for every reader
# make dev                             an editable install that editors can follow
# Nothing is needed but make and Python 3.10 or newer with venv; all else goes into .venv.

PYTHON ?= python3
VIDEOS ?=
MODEL ?= demo
OUTPUT ?= runs/$(shell date +%Y%m%d-%H%M%S)

PINS ?= --constraint constraints.txt

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PACKAGES := engine workers build bench
SOURCES := $(shell find $(PACKAGES) -type f -not -path '*/__pycache__/*' -not -path 'build/__editable__*')
DECLARED := setup.cfg setup.py pyproject.toml constraints.txt

.PHONY: run test lint types unit live-faults live-soak chaos soak mutants far-hosts ray fuzz bench dev clean

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

live-soak: .venv/checks .venv/installed
	$(BIN)/python tests/live_soak.py

mutants: .venv/checks .venv/installed
	$(BIN)/python tests/mutants.py $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED))

fuzz: .venv/checks .venv/installed
	$(BIN)/python tests/fuzz.py $(if $(SEED),--seed $(SEED))

live-faults: .venv/checks .venv/installed
	$(BIN)/python tests/live_faults.py

ray: .venv/checks .venv/installed
	$(PIP) install $(PINS) 'ray[data]'
	$(BIN)/python tests/ray_cluster.py

far-hosts: .venv/checks .venv/installed
	$(BIN)/python tests/far_hosts.py

chaos: .venv/checks .venv/installed
	$(BIN)/python tests/chaos.py --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1)

soak: .venv/checks .venv/installed
	$(BIN)/python tests/soak.py --minutes $(or $(MINUTES),60)

# Results that are there are kept: an interrupted session goes on where it was. What each one is for: docs/benchmarks.md
BENCH ?= runs/bench
RESULTS := $(addprefix $(BENCH)/,$(addsuffix .json,pipeline-float32 pipeline-bfloat16 pipeline-int8 decode codecs $(if $(VIDEOS),pixels) \
  baselines-float32 baselines-bfloat16 baselines-int8 baselines-720p pace transport transport-pace memory sweep watchers \
  devices inference backends server))
CLIPMUX := $(BIN)/clipmux
GIVEN := $(if $(VIDEOS),"$(VIDEOS)")
FLOAT32 := $(BENCH)/models/r3d50
SMALL := $(BENCH)/models/r3d18
MODELS := $(FLOAT32) $(FLOAT32)-bfloat16 $(FLOAT32)-int8 $(SMALL)-int8
RIVALS := --baselines reference,ray

bench: $(RESULTS)
	$(CLIPMUX) bench report $(RESULTS) --html $(BENCH)/report.html

$(BENCH)/pipeline-float32.json: WHAT = end-to-end $(GIVEN) --videos 100 --model $(FLOAT32) --baselines dataloader
$(BENCH)/pipeline-bfloat16.json: WHAT = end-to-end $(GIVEN) --videos 240 --model $(FLOAT32)-bfloat16 --baselines dataloader
$(BENCH)/pipeline-int8.json: WHAT = end-to-end $(GIVEN) --videos 400 --model $(FLOAT32)-int8 --baselines dataloader
$(BENCH)/decode.json: WHAT = decode --kinds h264
$(BENCH)/codecs.json: WHAT = decode
$(BENCH)/pixels.json: WHAT = decode $(GIVEN) --difference
$(BENCH)/baselines-float32.json: WHAT = end-to-end $(GIVEN) --videos 24 --model $(FLOAT32) $(RIVALS)
$(BENCH)/baselines-bfloat16.json: WHAT = end-to-end $(GIVEN) --videos 24 --model $(FLOAT32)-bfloat16 --float32 $(FLOAT32) $(RIVALS)
$(BENCH)/baselines-int8.json: WHAT = end-to-end $(GIVEN) --videos 40 --model $(FLOAT32)-int8 --float32 $(FLOAT32) $(RIVALS)
$(BENCH)/baselines-720p.json: WHAT = end-to-end --kind h264-mp4:1280x720 --videos 24 --model $(FLOAT32)-int8 --baselines dataloader,ray --baseline-preprocess exact
$(BENCH)/pace.json: WHAT = end-to-end --videos 400 --stride 1 --model $(FLOAT32) --backend null --null-delay 0.4+0.25
$(BENCH)/transport.json: WHAT = transport
$(BENCH)/transport-pace.json: WHAT = transport --null-delay 0.4+0.25
$(BENCH)/memory.json: WHAT = memory --backend null
$(BENCH)/watchers.json: WHAT = watchers $(GIVEN) --videos 120 --model $(FLOAT32)-int8 --repeats 3
$(BENCH)/devices.json: WHAT = devices $(GIVEN) --videos 60 --model $(SMALL)-int8 --device cpu --device cpu:0,cpu:1
$(BENCH)/sweep.json: WHAT = sweep $(GIVEN) --model $(FLOAT32) --model $(FLOAT32)-int8 --workers 1,2,4 --batch 4,8,16 --repeats 3
$(BENCH)/inference.json: WHAT = inference $(filter $(FLOAT32)%,$(MODELS))
$(BENCH)/backends.json: WHAT = inference $(FLOAT32) --backend torch-eager,torch,openvino --batch 8
$(BENCH)/server.json: WHAT = inference $(FLOAT32) --scenario server --latency-bound-ms 1000

$(RESULTS): | .venv/rivals $(MODELS)
	$(CLIPMUX) bench $(WHAT) --json $@

$(FLOAT32): | .venv/rivals
	$(CLIPMUX) build untrained resnet-50 --output $@

$(SMALL): | .venv/rivals
	$(CLIPMUX) build untrained resnet-18 --output $@

$(FLOAT32)-bfloat16: | $(FLOAT32)
	$(CLIPMUX) build compile $| --target openvino --precision bfloat16 --output $@

$(FLOAT32)-int8 $(SMALL)-int8: %-int8: | % $(if $(VIDEOS),,$(BENCH)/demo)
	$(CLIPMUX) build compile $* --target openvino --precision int8 \
	  --calibrate $(or $(GIVEN),$(BENCH)/demo/videos) --output $@

$(BENCH)/demo: | .venv/rivals
	$(CLIPMUX) demo --output $@

.venv/rivals: .venv/checks .venv/installed
	$(PIP) install $(PINS) '.[ray]'
	touch $@

dev: .venv/checks
	rm -rf build/__editable__*
	$(PIP) install $(PINS) --editable '.[torch,quantize,parquet,live,mqtt,remote,dev]' --config-settings editable_mode=strict
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
	$(PIP) install $(PINS) .
	touch $@

.venv/installed: .venv/needed $(SOURCES)
	rm -rf .setuptools
	$(PIP) install --no-deps --force-reinstall .
	touch $@

.venv/checks: .venv/needed tests/old_python.py
	$(PIP) install $(PINS) '.[torch,quantize,parquet,live,mqtt,remote,dev]'
	$(BIN)/python tests/old_python.py .venv/old
	touch $@
