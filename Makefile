# Oteo. `make run` does all the set-up and the main job; `make test` does all the set-up and passes the tests.
#   make run                      the sample that the project draws itself, about four minutes
#   make run DATA=/your/images    your images
#   make run DATA=… BUDGET=30m NAME=my-model
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD := .build
BUF_VERSION := 1.75.0
PACKAGES := protos core services/augment services/automl services/translate services/gateway client deploy/local
SOURCES := core services client deploy/local deploy/k8s tests benchmarks tools
PROTO_FILES := $(shell find protos/oteo -name '*.proto')
DATA ?=
BUDGET ?= 4m
NAME ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_ALBUMENTATIONS_UPDATE := 1

# Images: the engine that builds them (docker, podman or buildah) and more of its flags, what goes before their names, and their version.
ENGINE ?= docker
IMAGE_FLAGS ?=
REGISTRY ?=
VERSION ?= 0.1.0
IMAGES := gateway augment automl translate ray mlflow triton
# Those that stand on the images of deploy/k8s/images/base.
ON_BASES := $(addprefix image-,gateway augment automl translate ray)
image = $(if $(REGISTRY),$(REGISTRY)/)oteo-$(1):$(VERSION)
labels = --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD 2> /dev/null || echo unknown)

.PHONY: help setup protos triton system system-long chart-tools chart-schema images image-bases run up down test test-all lint format bench clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.installed protos triton ## one virtual environment with everything, generated code, the embedded Triton

$(VENV)/.installed: constraints.txt requirements-dev.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and "Oteo needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Give another: make PYTHON=python3.11")'
	@echo "==> environment in $(VENV) (about 7 GB, a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@mkdir -p protos/oteo_protos
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --requirement requirements-dev.txt $(addprefix --editable ./,$(PACKAGES))
	$(BIN)/python -m pip check
	@touch $@

protos: $(BUILD)/protos.stamp ## Python code of the contract

$(BUILD)/protos.stamp: $(PROTO_FILES) tools/build_protos.py $(VENV)/.installed
	@mkdir -p $(BUILD)
	$(BIN)/python tools/build_protos.py --image $(BUILD)/protos.binpb 2> $(BUILD)/protos.log || { cat $(BUILD)/protos.log >&2; exit 1; }
	@touch $@

triton: $(VENV)/.installed ## the embedded Triton, in an environment of its own
	$(BIN)/python -m oteo_local.triton_env --prefix .venv-triton

system: $(VENV)/.installed ## what the tests need from the operating system (PostgreSQL, dcmtk)
	$(BIN)/python tools/install_system.py

system-long: $(VENV)/.installed ## and what the long ones need beside that (buildah, debootstrap, rclone)
	$(BIN)/python tools/install_system.py --long

chart-tools: $(VENV)/.installed ## what the chart is checked with: helm, kubectl, hadolint, promtool
	$(BIN)/python tools/chart_tools.py --prefix $(BUILD)/chart-tools

chart-schema: setup ## the schema of the chart's values, from its Pydantic models
	$(BIN)/python tools/chart_values.py

images: $(addprefix image-,$(IMAGES)) ## container images of all services, with ENGINE, as REGISTRY/oteo-NAME:VERSION

image-%:
	$(ENGINE) build $(IMAGE_FLAGS) --file $(firstword $(wildcard services/$*/Dockerfile deploy/k8s/images/$*/Dockerfile)) --tag $(call image,$*) $(IMAGE_ARGS) .

image-mlflow image-triton: IMAGE_ARGS = $(labels)
$(ON_BASES): IMAGE_ARGS = --build-arg BUILD=$(call image,build) --build-arg RUNTIME=$(call image,runtime)
$(ON_BASES): image-bases

image-bases:
	$(ENGINE) build $(IMAGE_FLAGS) --file deploy/k8s/images/base/Dockerfile --target build --tag $(call image,build) .
	$(ENGINE) build $(IMAGE_FLAGS) --file deploy/k8s/images/base/Dockerfile --target runtime --tag $(call image,runtime) $(labels) .

run: setup ## set up and go: images in, a served prediction out
	$(BIN)/oteo run $(if $(DATA),"$(DATA)",--sample) --budget $(BUDGET) $(if $(NAME),--name $(NAME))

up: setup ## start the stack on this machine
	$(BIN)/oteo up

down: ## stop the stack
	$(BIN)/oteo down

test: setup system chart-tools ## the suite, under 25 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadscope $(PYTEST_ARGS)

test-all: setup system-long chart-tools ## the long tests too
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup $(BUILD)/buf/node_modules/.bin/buf ## ruff, mypy --strict, import-linter, buf
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/chart_values.py --check
	$(BUILD)/buf/node_modules/.bin/buf lint $(BUILD)/protos.binpb --config protos/buf.yaml

$(BUILD)/buf/node_modules/.bin/buf:
	@command -v npm > /dev/null || { echo "make lint needs npm (Debian: apt-get install npm) for buf" >&2; exit 1; }
	@mkdir -p $(BUILD)/buf
	npm install --silent --no-audit --no-fund --prefix $(BUILD)/buf @bufbuild/buf@$(BUF_VERSION)

format: setup ## put the code in shape
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: setup ## the quick benchmarks; the figures go to docs/benchmarks.md by hand
	$(BIN)/python benchmarks/import.py
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/augment.py
	$(BIN)/python benchmarks/transforms.py

clean: ## forget what was built (not your data: that is under OTEO_HOME)
	rm -rf $(VENV) .venv-triton $(BUILD) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find protos/oteo_protos -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
