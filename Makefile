# One word per chore. Each target makes .venv by itself; needs Python ≥ 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LABEL_STAMP := $(VENV)/.label-installed

.PHONY: demo label test test-slow test-gpu lint format reference clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

demo: $(STAMP)  ## phantom → train → segment → evaluate → a picture, in demo/
	$(BIN)/medseg demo --out demo

label: $(LABEL_STAMP)  ## MONAI Label for `medseg label`, with this environment's own versions
	$(BIN)/medseg label --help

$(LABEL_STAMP): $(STAMP) medseg/label_server/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement medseg/label_server/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps monailabel==0.8.5
	touch $(LABEL_STAMP)

test: $(STAMP)  ## lint, types, layers and the default tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test-slow: $(STAMP)  ## minutes: other environments, many kills, servers, a browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "slow and not alone" --numprocesses 2 --dist loadfile
	$(BIN)/pytest -m "slow and alone"

test-gpu: $(STAMP)  ## on a machine with CUDA
	$(BIN)/pytest -m gpu

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(STAMP)  ## the JSON Schema and the reference of bundle.json, from its fields
	$(BIN)/medseg schema > docs/reference/medseg-bundle-1.json
	$(BIN)/python docs/generate/bundle_reference.py > docs/reference/bundle.md

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
