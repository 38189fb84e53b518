# Everything runs in an environment that this file makes: it needs Python 3.11+, make and a compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.demo-ready
PYTEST_FLAGS ?=
# most tests wait for processes: one more than cores, up to four; but not where a verdict hangs on the clock
ABREAST := -n $(shell echo $$(($$($(PYTHON) -c "import os; print(os.cpu_count() or 1)") + 1))) --maxprocesses 4 --dist worksteal

.PHONY: demo test check format bench dependencies cuda-build lock clean

demo: $(DEMO_READY)  ## The main job: train a small GPT for 2,000 steps under the guard, and report
	$(BIN)/holdwater train --preset small --steps 2000 --out runs/demo-$$(date +%Y-%m-%d-%H%M%S) --json out.json
	$(BIN)/python -c "import json; v = json.load(open('out.json')); print('verdict:', v['verdict']); \
	raise SystemExit(v['verdict'] not in ('flat', 'bounded'))"

test: $(READY)  ## The tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m alone || [ $$? = 5 ]  # 5: there is none among those that were named
	$(BIN)/python -m pytest $(PYTEST_FLAGS) -m "not alone" $(ABREAST) || [ $$? = 5 ]

check: $(READY)  ## All checks: format, lint, types, floors, docs; sizes and tests last
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check_docs.py
	$(MAKE) test

format: $(READY)  ## Let ruff format the code and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Run every benchmark and write its numbers to benchmarks/results/
	$(BIN)/python benchmarks/run_all.py

dependencies: $(READY)  ## Each dependency at its lowest and newest version, each integration without the others: hours
	alone=0; $(BIN)/python benchmarks/integrations_alone.py || alone=1; \
	$(BIN)/python benchmarks/dependencies.py && exit $$alone

CUDA_TORCH = torch>=2.9
cuda-build:  ## PyTorch as the registry gives it, in an environment of its own: is a script as bare? Several GB
	$(PYTHON) -m venv .venv-cuda
	PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= .venv-cuda/bin/pip install --disable-pip-version-check --quiet \
	--index-url https://pypi.org/simple "$(CUDA_TORCH)" safetensors memray
	PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= .venv-cuda/bin/pip install --disable-pip-version-check --quiet \
	--index-url https://pypi.org/simple --editable .
	.venv-cuda/bin/python benchmarks/cuda_build.py

lock: $(READY)  ## Write the versions that are installed into requirements/
	(head -2 requirements/dev.txt && $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//') > .lock && mv .lock requirements/dev.txt
	awk -F== 'NR == FNR { pin[$$1] = $$0; next } $$1 in pin { $$0 = pin[$$1] } 1' \
	requirements/dev.txt requirements/demo.txt > .lock && mv .lock requirements/demo.txt

clean:
	rm -rf $(VENV) .venv-cuda .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

define NEW_VENV
$(PYTHON) -c "import sys; sys.exit('holdwater needs Python 3.11 or newer' if sys.version_info < (3, 11) else 0)"
$(PYTHON) -m venv $(VENV)
endef
EDITABLE = $(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .

# torch is not in the lock of other platforms' wheels: `torch==2.13.0` takes the CPU build where one lies at hand
$(READY): requirements/dev.txt pyproject.toml
	$(NEW_VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet -r requirements/dev.txt
	$(EDITABLE)
	touch $@ $(DEMO_READY)

# the demo needs a quarter of the packages; where all are installed already it installs nothing
$(DEMO_READY): requirements/demo.txt pyproject.toml
	$(NEW_VENV)
	@echo "installing what the demo needs into $(VENV) (requirements/demo.txt); PyTorch is the largest part"
	$(BIN)/pip install --disable-pip-version-check --progress-bar off -r requirements/demo.txt
	$(EDITABLE)
	touch $@
