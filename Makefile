# Every target sets up what it needs: a virtual environment in .venv with the locked versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-faults test-updates test-cookbook test-browser test-aarch64 fuzz image boot-test deb soak \
  results results-on-pi results-on-site paper-networks record-models record-mqtt record-updates record-fleet record-faults record-soak \
  check docs package licences format lock clean
MINUTES ?= 30
RECORD := $(BIN)/python benchmarks/record.py
# For the records of models: a trained WRN-40-4, and a zip of train/CLASS/*.png and test/CLASS/*.png.
TEACHER ?= teacher.keras
CIFAR10 ?= cifar10.zip
EXAMPLE := docs/examples/cifar10-2x-wrn-16-1

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## teacher -> 3 students -> live answers over MQTT, under a minute after the install
	$(BIN)/nonn-trainer demo

test: $(VENV)/.dev ## all tests that take minutes, not hours
	$(BIN)/pytest -m "not slow"

test-updates: $(VENV)/.dev ## remote updates under traffic and faults
	$(BIN)/pytest tests/updates tests/unit/test_rollout.py tests/unit/test_model_store.py

test-faults: $(VENV)/.dev ## chaos suite, half an hour
	$(BIN)/python tests/fleet/faults.py

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
	for network in router ipv6 cable; do $(BIN)/nonn-image boot-test dist/nonn-edge.img --deployment $(EXAMPLE) --pair $$network || exit 1; done
	for trouble in no-network small-card full-card; do $(BIN)/nonn-image boot-test dist/nonn-edge.img --trouble $$trouble || exit 1; done
	$(BIN)/nonn-image boot-test dist/nonn-edge.img --machine raspi3b --deployment $(EXAMPLE) --camera --power-cut

deb: $(VENV)/.dev ## Debian packages for stock Raspberry Pi OS in dist/
	$(BIN)/nonn-image deb --suite bookworm --output dist
	$(BIN)/nonn-image deb --suite trixie --output dist

results: $(VENV)/.dev ## put the records of benchmarks/records into README.md and docs
	$(BIN)/python benchmarks/results_page.py

results-on-pi: | $(VENV)/bin/python ## on a Raspberry Pi: measure the example deployment, write a file to send in
	$(PIP) -e '.[agent]'
	$(RECORD) --to results-on-pi-$$(hostname).json \
	  $(BIN)/python benchmarks/on_device.py $(EXAMPLE) $(if $(NETWORKS),--networks $(NETWORKS))

results-on-site: $(VENV)/.dev ## of a site that runs: all test images over it; SITE=operator.toml, CIFAR10; a file to send in
	$(RECORD) --to results-on-site-$$(hostname).json \
	  $(BIN)/python benchmarks/over_mqtt.py --site $(SITE) --dataset $(CIFAR10) --window 1

paper-networks: build/paper-networks ## the paper's networks as TFLite files in build/; TEACHER=teacher.keras
build/paper-networks: | $(VENV)/.dev
	$(BIN)/python benchmarks/network_files.py --out $@ wrn-40-4=$(TEACHER) wrn-16-1:133 vgg19 vgg11:256

build/two-float32: build/paper-networks
	rm -rf $@
	$(BIN)/python benchmarks/bench_deployment.py --out $@ --file $</wrn-16-1.float32.tflite

record-models: build/paper-networks $(VENV)/.dev ## records of engines, paper's tables, accuracy and bytes; TEACHER and CIFAR10
	$(PIP) 'onnx>=1.17' # writes files for onnxruntime; the engines get environments of their own
	$(RECORD) model-costs $(BIN)/python benchmarks/model_costs.py
	$(RECORD) subsets $(BIN)/python benchmarks/subsets.py $(EXAMPLE) $(EXAMPLE)-v2 --dataset $(CIFAR10)
	$(RECORD) feature-bytes $(BIN)/python benchmarks/feature_bytes.py --deployment $(EXAMPLE) $(EXAMPLE)-v2 \
	  --dataset $(CIFAR10) --split test --images 10000
	$(RECORD) agent-footprint $(BIN)/python benchmarks/agent_footprint.py --deployment $(EXAMPLE) --repeat 5
	$(RECORD) engines $(BIN)/python benchmarks/engines.py --student wrn-16-1=$</wrn-16-1.float32.tflite \
	  --student vgg-11=$</vgg11.float32.tflite
	$(RECORD) paper-tables $(BIN)/python benchmarks/paper_tables.py --networks $< --engines all \
	  --deployment $(EXAMPLE) --dataset $(CIFAR10)

record-mqtt: build/two-float32 ## records of frames over MQTT, and of the teacher split by layers; TEACHER and CIFAR10
	$(BIN)/python benchmarks/subsets.py $(EXAMPLE) --dataset $(CIFAR10) --answers build/answers.npz
	for window in 16 1; do \
	  $(RECORD) over-mqtt$$(test $$window = 1 && echo -one) $(BIN)/python benchmarks/over_mqtt.py $(EXAMPLE) \
	    --dataset $(CIFAR10) --expect build/answers.npz --window $$window || exit 1; done
	$(RECORD) model-parallel $(BIN)/python benchmarks/model_parallel.py $< --teacher $(TEACHER) --frames 40

record-updates: $(VENV)/.dev ## record of updates under traffic
	$(RECORD) --verdict update $(BIN)/python benchmarks/update.py --runs 7

record-fleet: $(VENV)/.dev ## records of latency, throughput, capacity and cost of a fleet
	for part in latency capacity cost; do \
	  $(RECORD) fleet-$$part $(BIN)/python benchmarks/fleet.py --only $$part --frames $$(test $$part = latency && echo 300 || echo 2000) || exit 1; done
	$(RECORD) fleet-throughput $(BIN)/python benchmarks/fleet.py --only throughput \
	  --networks wrn-16-1 wrn-16-2 wrn-22-2 wrn-16-1 wrn-16-2 wrn-22-2

record-faults: $(VENV)/.dev ## record of the chaos suite
	$(RECORD) --verdict faults $(BIN)/python tests/fleet/faults.py

record-soak: $(VENV)/.dev ## record of a soak of MINUTES=30
	$(RECORD) --verdict soak $(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

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

package: | $(VENV)/bin/python ## wheel and sdist in dist/
	@$(PIP) build
	$(BIN)/python -m build -q --outdir dist
	@ls -s --block-size=kB dist/nonn_edge-*

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
