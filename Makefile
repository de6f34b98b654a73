# One word per chore. Each target makes .venv by itself; needs Python ≥ 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.dev-installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
# Once the libraries are there, pip has little to say but a line for each that is.
PIP_AGAIN := $(PIP) --quiet
LABEL_STAMP := $(VENV)/.label-installed
DOCS_STAMP := $(VENV)/.docs-installed

.PHONY: demo label test test-slow test-nightly test-gpu lint format docs reference clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing medseg and its libraries (PyTorch, MONAI, MLflow and others) into $(VENV):"
	@echo "about 1 GB to download and 2 GB on disk without CUDA, 4 GB and 6 GB with it; at 100 Mbit/s"
	@echo "this takes 3 minutes, or 8."
	@echo "On Linux without a GPU, stop this and fetch the smaller one:"
	@echo "    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make $(MAKECMDGOALS)"
	$(if $(wildcard $(BIN)/medseg),$(PIP_AGAIN),$(PIP)) --editable .
	-$(BIN)/python -m pip check
	touch $(STAMP)

$(DEV_STAMP): $(STAMP)
	@echo "Installing the tools for tests: 200 MB to download, about a minute."
	$(PIP_AGAIN) --editable ".[dev]"
	touch $(DEV_STAMP)

demo: $(STAMP)  ## phantom → train → segment → evaluate → a picture, in demo/
	@echo "The demo takes a few minutes on a CPU."
	$(BIN)/medseg demo --out demo

label: $(LABEL_STAMP)  ## MONAI Label for `medseg label`, with this environment's own versions
	$(BIN)/medseg label --help

$(LABEL_STAMP): $(STAMP) medseg/label_server/requirements.txt
	@echo "Installing MONAI Label and what it needs: 25 MB to download, 80 MB on disk, about a minute."
	$(PIP) --requirement medseg/label_server/requirements.txt
	$(PIP) --no-deps monailabel==0.8.5
	touch $(LABEL_STAMP)

test: lint  ## lint and the default tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test-slow: $(DEV_STAMP)  ## minutes: other environments, many kills, servers, a browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "slow and not alone and not nightly" --numprocesses 2 --dist loadfile
	$(BIN)/pytest -m "slow and alone and not nightly"

test-nightly: $(DEV_STAMP)  ## the longest of them: both kinds of CPU, notebooks, the README's commands
	$(BIN)/pytest -m nightly

test-gpu: $(DEV_STAMP)  ## on a machine with CUDA
	$(BIN)/pytest -m gpu

lint: $(DEV_STAMP)  ## style, types, layers, and how dense the code is to read
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python workflows/lint/density.py

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS_STAMP) reference  ## the documentation as a site, in site/; opens without a server
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(DOCS_STAMP): $(DEV_STAMP)
	$(PIP_AGAIN) --editable ".[dev,docs]"
	touch $(DOCS_STAMP)

reference: $(DEV_STAMP)  ## the pages that are written from the code: bundle.json, command line
	$(BIN)/medseg schema > docs/reference/medseg-bundle-1.json
	$(BIN)/medseg schema assembly > docs/reference/medseg-assembly-1.json
	$(BIN)/python docs/generate/bundle_reference.py > docs/reference/bundle.md
	$(BIN)/python docs/generate/bundle_reference.py assembly > docs/reference/assembly.md
	$(BIN)/python docs/generate/cli_reference.py > docs/reference/cli.md

clean:
	rm -rf $(VENV) demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis
