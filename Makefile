# make help: what there is. Each target sets up what it needs: Python packages in .venv from the lock
# files, Debian packages by apt-get when that is possible, otherwise it names them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
PROTOS := $(wildcard protos/keymaterial/v1/*.proto)
STUBS := clients/python

.DEFAULT_GOAL := help
.PHONY: help demo test lint format audit sbom proto bench soak lock docs matrix clean

help: ## Lists the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(RUNTIME) ## Imports a key of each size into an embedded KMS and shows each step
	@sh scripts/require openssl:openssl
	@$(BIN)/keybroker demo

test: $(DEV) ## Runs all tests
	@sh scripts/require openssl:openssl curl:curl promtool:prometheus softhsm2-util:softhsm2 gcore:gdb \
	  buildah:buildah mmdebstrap:mmdebstrap podman:podman runc:runc catatonit:catatonit
	@$(BIN)/pytest -n 2 --dist loadgroup -m "not alone"; others=$$?; $(BIN)/pytest -m alone && exit $$others

lint: $(DEV) ## Checks style, types, layers, protos, dependencies and generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/hadolint deploy/docker/Dockerfile
	$(BIN)/python scripts/audit_dependencies.py
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format -d --exit-code && ../$(BIN)/buf breaking --against released.json
	$(BIN)/python scripts/generate_stubs.py --check
	$(BIN)/python scripts/generate_errors_doc.py --check
	$(BIN)/python scripts/generate_emulator_fidelity.py --check

audit: $(DEV) ## Looks all packages of the lock files up for known vulnerabilities; fails if one can't be looked up
	$(BIN)/python scripts/audit_dependencies.py --complete

sbom: $(DEV) ## Writes build/sbom.cdx.json: what requirements.lock installs, in CycloneDX
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json requirements.lock

format: $(DEV) ## Formats Python and protos
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	cd protos && ../$(BIN)/buf format -w

proto: $(DEV) ## Generates the Python stubs from protos/
	$(BIN)/python scripts/generate_stubs.py

docs: $(DEV) ## Generates docs/errors.md and docs/emulator-fidelity.md
	$(BIN)/python scripts/generate_errors_doc.py
	$(BIN)/python scripts/generate_emulator_fidelity.py

matrix: $(DEV) ## Runs the fault matrix and generates docs/fault-matrix.md from what came of it (minutes)
	$(BIN)/python scripts/generate_fault_matrix.py

bench: $(DEV) ## Measures imports against the emulator, beside the vendor's SDK and a floor
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.quotas

soak: $(DEV) ## Long runs of what must hold whatever fails: crashes at random moments, the state machine, the model, fuzzing
	$(BIN)/python -m tests.soak
	$(BIN)/python -m tests.model
	KEYBROKER_OUTAGE_SECONDS=60 $(BIN)/pytest -n0 --timeout 300 tests/integration/test_outage.py
	KEYBROKER_FUZZ_EXAMPLES=1500 $(BIN)/pytest -n 2 --timeout 900 tests/fuzz

lock: $(DEV) ## Renews the lock files
	$(BIN)/uv pip compile -q -U --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --python-version 3.11 --extra server --extra emulator --no-emit-package keybroker \
	  pyproject.toml requirements-build.in -o requirements.lock
	$(BIN)/uv pip compile -q -U --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --python-version 3.11 --extra dev --no-emit-package keybroker -c requirements.lock \
	  pyproject.toml requirements-build.in -o requirements-dev.lock

clean: ## Removes the virtual environment and caches
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@sh scripts/require $(PYTHON):python3
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV) || (sh scripts/require ensurepip:python3-venv && $(PYTHON) -m venv --clear $(VENV))

$(RUNTIME): requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
