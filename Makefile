# Every target sets up what it needs: a virtual environment in .venv with the locked versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-faults test-updates test-cookbook test-browser test-aarch64 fuzz image boot-test deb soak check docs package licences format lock clean
MINUTES ?= 30
EXAMPLE := docs/examples/cifar10-2x-wrn-16-1

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## teacher -> 3 students -> live answers over MQTT, about 3 minutes
	$(BIN)/nonn-trainer demo

test: $(VENV)/.dev ## all tests that take minutes, not hours
	$(BIN)/pytest -m "not slow"

test-updates: $(VENV)/.dev ## remote updates under traffic and faults
	$(BIN)/pytest tests/updates tests/unit/test_rollout.py tests/unit/test_model_store.py

test-faults: $(VENV)/.dev ## chaos suite, half an hour; writes docs/reliability.md
	$(BIN)/python tests/fleet/faults.py --out docs/reliability.md

fuzz: $(VENV)/.dev ## every parser that touches network or card, for MINUTES=30
	$(BIN)/python tests/security/fuzz.py --minutes $(MINUTES)

test-aarch64: $(VENV)/.dev ## the agent's engines on an emulated Cortex-A53
	PYTHON=$(BIN)/python tests/aarch64/run.sh

soak: $(VENV)/.dev ## steady load for MINUTES=30: memory, descriptors, latency drift
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

image: $(VENV)/.dev ## an SD image in dist/ (root; docs/images.md)
	$(BIN)/nonn-image build --output dist

boot-test: $(VENV)/.dev ## boot dist/nonn-edge.img in QEMU (docs/images.md)
	$(BIN)/nonn-image boot-test dist/nonn-edge.img --machine virt --deployment $(EXAMPLE) --camera --inspect --power-cut
	$(BIN)/nonn-image boot-test dist/nonn-edge.img --machine virt --deployment $(EXAMPLE) --role both --power-cut --work boot-test/hub
	$(BIN)/nonn-image boot-test dist/nonn-edge.img --machine virt --deployment $(EXAMPLE) --role coordinator --inspect --power-cut --work boot-test/coordinator
	for trouble in no-network small-card full-card; do $(BIN)/nonn-image boot-test dist/nonn-edge.img --trouble $$trouble || exit 1; done
	$(BIN)/nonn-image boot-test dist/nonn-edge.img --machine raspi3b --deployment $(EXAMPLE) --camera --power-cut

deb: $(VENV)/.dev ## Debian packages for stock Raspberry Pi OS in dist/
	$(BIN)/nonn-image deb --suite bookworm --output dist
	$(BIN)/nonn-image deb --suite trixie --output dist

results: $(VENV)/.dev ## put the records of benchmarks/records into docs/results.md
	$(BIN)/python benchmarks/results_page.py

results-on-pi: | $(VENV)/bin/python ## on a Raspberry Pi: measure the example deployment, write a file to send in
	$(PIP) -e '.[agent]'
	$(BIN)/python benchmarks/record.py --to results-on-pi-$$(hostname).json \
	  $(BIN)/nonn-agent bench --deployment docs/examples/cifar10-2x-wrn-16-1 --json

test-cookbook: $(VENV)/.dev ## the recipes of docs/cookbook.md
	$(BIN)/pytest tests/cookbook

test-browser: $(VENV)/.dev ## the dashboard in Debian's Chromium
	$(BIN)/pytest tests/browser

check: $(VENV)/.dev ## lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev ## the documents as a site in build/site; a broken link fails
	$(BIN)/sphinx-build -W --keep-going -q -c .ci/site -d build/doctrees -b html . build/site

package: $(VENV)/.dev ## wheel and sdist in dist/
	$(BIN)/python -m build --outdir dist

licences: $(VENV)/.dev ## the licence of everything that a device or coordinator installs
	$(BIN)/python .ci/licences.py

format: $(VENV)/.dev ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.dev ## choose new versions for constraints.txt
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --upgrade --python-version 3.11 \
	  --no-header --no-annotate --quiet -o constraints.txt

clean: ## remove the environment and all caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; set PYTHON=python3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: no venv module; on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a minute or two, 2 GB: TensorFlow)"
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a minute or two, 3 GB: TensorFlow and TVM)"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo
