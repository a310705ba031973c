# make demo   the whole loop on this machine      make test    every test
# make check  format, lint, types, imports        make bench   measured speed, as ratios
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export CXR_DATA ?= ../shared/data
export CXR_DICOM ?= ../shared/dicom

.PHONY: install check test demo bench format clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cxr-worker needs Python 3.11 or later; try make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing cxr-worker and what it needs into $(VENV) (a few minutes, some gigabytes: PyTorch) …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup

demo: install
	$(BIN)/cxr-worker demo $(if $(IMAGES),--images $(IMAGES))

bench: install
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
