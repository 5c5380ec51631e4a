# `make help` lists the targets. Each does its own set-up; the second time that takes no time.

PYTHON ?= python3
TORCH ?= torch==2.13.0
JOBS ?= 2

BIN := .venv/bin
# Stamps: the environment, the native library, the peers.
VENV := .venv/stamp
NATIVE := .venv/stamp-native
PEERS := .venv/stamp-peers
READY := $(VENV) $(NATIVE)
SOURCES := ritornello/kernels/native/src
LIBRARY := ritornello/kernels/native/_native.so
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -q

.DEFAULT_GOAL := help
.PHONY: help setup demo test check conformance sanitized mutants bench docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY) ## .venv with torch, the package in development mode, its native library and all tools

demo: $(READY) ## train a small hybrid on the standard library's source for two minutes, then stream from it
	$(BIN)/ritornello demo

test: $(READY) ## all tests, and a sample of the conformance product; under ten minutes on two cores
	$(PYTEST)

check: $(READY) ## ruff, pyright and the fast tests; two to three minutes on two cores
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(PYTEST) -m "not slow and not conformance"

conformance: $(READY) ## the whole conformance product
	$(PYTEST) -m conformance --conformance=all

# Without the sanitizers' libraries there is nothing to run: that is said, and is no failure.
ASAN := $(shell cc -print-file-name=libasan.so 2>/dev/null)
# Beside it, for the exceptions of PyTorch, which the sanitizer otherwise meets without knowing how to pass them on.
STDCXX := $(shell cc -print-file-name=libstdc++.so.6 2>/dev/null)
sanitized: $(READY) ## the native kernels' tests under the address and undefined-behaviour sanitizers
	@test -f "$(ASAN)" || { echo "The C compiler has no libasan: nothing is run."; exit 0; }; set -e; \
	$(BIN)/python -m ritornello.kernels.native.build --sanitize; \
	LD_PRELOAD="$(ASAN) $(STDCXX)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc OMP_NUM_THREADS=1 \
	RITORNELLO_NATIVE_LIBRARY=$(LIBRARY:.so=_sanitized.so) $(BIN)/python -m pytest -q tests/ops -k native

mutants: $(READY) ## plant every bug of tools/mutants.toml in a copy of the tree; each must turn its tests red
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutants.py --jobs $(JOBS)

bench: $(PEERS) ## speed against the peers, in the same run
	$(BIN)/ritornello bench --peers

docs: $(READY) ## the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove what the other targets made
	rm -rf .venv build site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find ritornello -name '*.so' -delete

# torch first and by itself, so that a torch of your choice, once in .venv, stays; constraints.txt does not name it.
$(VENV): pyproject.toml constraints.txt setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q "$(TORCH)"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

# The installation has built it; what follows is for a source changed since. Without a compiler one goes on without it.
$(NATIVE): $(wildcard $(SOURCES)/*) | $(VENV)
	@test -z "$$(find $(SOURCES) -newer $(LIBRARY) 2>&1)" || $(BIN)/python -m ritornello.kernels.native.build || true
	@touch $@

$(PEERS): $(READY)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[peers]"
	@touch $@
