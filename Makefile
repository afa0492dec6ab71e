# Everything a developer runs. `make` alone lists the targets; nothing needs to be installed before.
# Works with the make of macOS (GNU make 3.81); pass arguments as in `make test ARGS="-k wait"`.

SHELL := /bin/sh
BIN := .venv/bin
# Twice quiet: errors only, and not pip's thoughts about a home folder it cannot write to.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
INSTALL := $(PIP) install --root-user-action=ignore
SOURCES := service tests benchmarks
PACKAGED := $(shell find service sql workflows -type f ! -name '*.pyc') pyproject.toml README.md LICENSE
# What finds the compiled core before the checkout's own, in this process and those it starts.
ON_CORE := PYTHONSAFEPATH=1 PYTHONPATH=build/core:.
# Suites that prove behaviour and do not reach into what is compiled.
CORE_TESTS := tests/asl tests/conformance tests/e2e/test_map_runs.py \
	tests/faults/test_small.py -k "not small_edition or R1_"
COMPILER := $(shell command -v cc 2>/dev/null)
INTERPRETED := echo "There is no C compiler here: the core is interpreted." >&2
UNTESTED := echo "NOT TESTED: the compiled core, as there is no C compiler here."
# By another name than make's own, so that a dry run does not run what stands beside it.
AGAIN = $(MAKE) --no-print-directory
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.NOTPARALLEL: # two installations into one .venv would trip over each other
.PHONY: help run test e2e check fmt lint type core test-core bench faults setup lock image-check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/demo.stamp ## the whole service on embedded parts, on this machine
	@exec $(BIN)/countersign demo $(ARGS)

test: .venv/test.stamp ## the whole test suite, on an embedded PostgreSQL or on TEST_DATABASE_URL
	@$(BIN)/python -m pytest $(ARGS)

e2e: .venv/test.stamp ## only the tests that run the service as a process
	@$(BIN)/python -m pytest -m e2e $(ARGS)

# The suite of `make test` in two halves, side by side: what waits for processes, and what computes. In
# the time that they leave, the core is compiled; then it is tried beside the simulation. Each is waited
# for, whatever came of the others; Ctrl-C is passed on, which a shell has its background ignore.
check: lint type .venv/test.stamp $(and $(COMPILER),.venv/compile.stamp) ## what CI runs: format, lint, import arrows, types, tests
	@mkdir -p build; $(BIN)/python -m pytest -m e2e -p no:cacheprovider >build/e2e.log 2>&1 & e2e=$$!; \
	$(if $(COMPILER),nice -n 19 $(AGAIN) core,:) >build/core.log 2>&1 & core=$$!; \
	trap 'kill $$e2e $$core 2>/dev/null' INT TERM; \
	$(BIN)/python -m pytest -m "not e2e"; rest=$$?; \
	wait $$e2e; processes=$$?; wait $$core; compiled=$$?; cat build/e2e.log build/core.log; \
	[ $$rest = 0 ] && [ $$processes = 0 ] && [ $$compiled = 0 ]
	@$(if $(COMPILER),$(AGAIN) test-core,$(UNTESTED)) >build/test-core.log 2>&1 & core=$$!; \
	trap 'kill $$core 2>/dev/null' INT TERM; \
	nice -n 19 $(AGAIN) faults ARGS="D1 --seed 0 --seeds 2000"; simulated=$$?; \
	wait $$core; tested=$$?; cat build/test-core.log; [ $$simulated = 0 ] && [ $$tested = 0 ]

fmt: setup ## format the code and mend what the linter can
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

lint: setup ## format, lint rules and import arrows, changing nothing
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/lint-imports --no-logo

type: setup ## mypy --strict
	@$(BIN)/mypy service

core: build/core.stamp ## the service as the image has it, with its core compiled, into build/core

test-core: .venv/test.stamp build/core.stamp ## the suites that count most, on the compiled core
	@$(ON_CORE) $(BIN)/python -m pytest --override-ini pythonpath= $(CORE_TESTS) $(ARGS)

bench: .venv/test.stamp ## speed and cost of the language and of the workflow, one JSON line a measurement
	@$(if $(COMPILER),$(MAKE) --no-print-directory core,$(INTERPRETED))
	@$(if $(COMPILER),$(ON_CORE)) $(BIN)/python -m benchmarks $(ARGS)

faults: .venv/test.stamp ## break something on purpose and count what it cost: make faults ARGS="R1 --seed 7"
	@$(if $(COMPILER),$(MAKE) --no-print-directory core,$(INTERPRETED))
	@$(if $(COMPILER),$(ON_CORE)) $(BIN)/python -m tests.faults $(ARGS)

setup: .venv/dev.stamp ## everything a developer needs, into .venv

lock: setup ## resolve the dependencies anew into locks/, every one with its hashes
	@$(LOCK) pyproject.toml --extra dev --group build --output-file locks/dev.txt
	@$(LOCK) pyproject.toml --constraint locks/dev.txt --extra test --output-file locks/test.txt
	@$(LOCK) pyproject.toml --constraint locks/dev.txt --extra embedded --output-file locks/demo.txt
	@$(LOCK) pyproject.toml --constraint locks/dev.txt --output-file locks/serve.txt
	@$(LOCK) --constraint locks/dev.txt --group build --output-file locks/build.txt
	@$(LOCK) --constraint locks/dev.txt --group compile --output-file locks/compile.txt

image-check: ## the installing steps of the Dockerfile, in a scratch folder and without Docker
	@deploy/image-check

# Made of a copy, since the compiler leaves its output beside the sources, where it would be imported.
build/core.stamp: .venv/compile.stamp $(PACKAGED)
	@echo "Compiling the core into build/core, which takes a minute or two ..."
	@rm -rf build/core build/core-source build/core-wheel && mkdir -p build/core-source
	@cp -R service sql workflows pyproject.toml README.md LICENSE build/core-source
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(PIP) wheel --no-deps --no-build-isolation \
		--wheel-dir build/core-wheel build/core-source
	@$(INSTALL) --no-deps --no-index --target build/core build/core-wheel/*.whl
	@rm -rf build/core-source build/core-wheel && touch $@

# A stamp is newer than the lock it stands for; a second run installs nothing.
.venv/%.stamp: .venv/made.stamp locks/%.txt locks/build.txt pyproject.toml
	@echo "Installing into .venv (locks/$*.txt) ..."
	@$(INSTALL) --require-hashes --requirement locks/build.txt --requirement locks/$*.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/made.stamp:
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then touch $@; exit 0; fi; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		echo "Making .venv with $$("$$python" --version) ..."; \
		"$$python" -m venv --clear .venv && touch $@ && exit 0; \
		echo "$$python could not make a virtual environment (above it says why)." >&2; \
		echo "On Debian and Ubuntu the package python3-venv is needed." >&2; \
		exit 1; \
	done; \
	echo "No Python 3.11 or newer found; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
	exit 1
