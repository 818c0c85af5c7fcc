# The table of contents of development. `make` alone prints it.
PYTHON ?= python3.11
DATA ?= ../shared/data
BIN := .venv/bin
# Where tests, figures and definitions look for real data; what needs it is skipped, and says so, where it is absent.
export EXPORTER_DATA ?= $(abspath $(DATA))
# Published weights and a real recording, where they are at hand; the demo says so when they are not.
CHECKPOINT ?= $(wildcard $(DATA)/gtcrn/gtcrn_dns3.tar)
SAMPLES ?= $(wildcard $(DATA)/gtcrn/noisy.wav)

.DEFAULT_GOAL := help
.PHONY: help setup demo lint fmt type test test-all test-gpu contract faults bench cards arm64 zoo backend clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready .venv-device/ready .trt-bindings/ready ## make .venv with everything, and .venv-device without PyTorch

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[trace,openvino,mobile,int8,zoo,speech,dev]'
	@touch $@

# What a device has: the base install and the runtimes. The tests prove that verify, profile and run need no more.
.venv-device/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[images]' openvino onnxruntime
	@touch $@

# TensorRT's Python bindings alone, of three versions: what the target uses is checked against them. Its libraries and a
# GPU are not needed, and not there.
TRT_BINDINGS := tensorrt-cu12-bindings==10.3.0 tensorrt-cu13-bindings==10.16.1.11 tensorrt-cu13-bindings==11.4.0.106

.trt-bindings/ready: .venv/ready
	@[ "$$(uname -sm)" = "Linux x86_64" ] || { echo "TensorRT's bindings are looked at on Linux x86_64 only"; exit 0; }; \
	for package in $(TRT_BINDINGS); do \
	  $(BIN)/pip install -q --disable-pip-version-check --no-deps --upgrade -t .trt-bindings/$${package##*==} $$package \
	    || exit 1; done && touch $@

demo: .venv/ready ## export GTCRN to OpenVINO and mobile; print verdicts and latencies
	$(BIN)/exporter openvino gtcrn -o demo.bundle --replace $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(if $(SAMPLES),--samples $(SAMPLES))
	$(BIN)/exporter mobile gtcrn -o demo.bundle $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(if $(SAMPLES),--samples $(SAMPLES))

lint: .venv/ready ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: .venv/ready ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: .venv/ready ## mypy, strict
	$(BIN)/mypy

# A worker per core, so each computes with one thread: threads of two workers on the same cores wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadgroup

test: setup ## all tests but the slow ones (under 15 minutes)
	$(PYTEST) -m 'not slow'

test-all: setup ## every test
	$(PYTEST)

contract: setup ## what every target and every model must satisfy
	$(BIN)/pytest tests/contract

faults: setup ## what breaks, and files that lie
	$(BIN)/pytest tests/faults tests/attacks

test-gpu: setup ## every model on the GPU of this machine, with TensorRT
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[tensorrt]'
	$(BIN)/pytest tests/gpu

bench: setup ## the figures, as ratios in one run; writes docs/performance.md
	$(BIN)/python -m tests.bench

cards: setup ## export every definition for every target; writes docs/models.md
	$(BIN)/python -m tests.bench.cards

arm64: .venv/ready ## an arm64 machine under qemu, for `--on arm64`
	$(BIN)/python -m exporter.devices.emulation

zoo: setup ## export models nobody here wrote; writes docs/zoo.md
	$(BIN)/python -m tests.zoo

backend: setup ## ONNX's own node tests through the CPU targets; writes docs/backend.md
	$(BIN)/python -m tests.backend

clean: ## remove environments and caches
	rm -rf .venv .venv-device .trt-bindings build *.egg-info .mypy_cache .ruff_cache .hypothesis
