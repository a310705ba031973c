# make demo   the whole loop on this machine      make test    every test
# make check  format, lint, types, imports        make bench   measured speed, as ratios
# make viewer OHIF, which the tests look through  make pictures  those of docs/viewers.md, anew
# make soak   nothing is lost (an hour, root)     writes docs/reliability.md
# make fuzz   broken bytes for an hour            writes docs/fuzzing.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OHIF := 3.12.10
OHIF_SHA256 := fbabd410be33e5b9898931b725229b9da9553aac339914b5c29796d3aa5d4b2d
VIEWER := .viewer/ohif-$(OHIF)
export CXR_DATA ?= ../shared/data
export CXR_DICOM ?= ../shared/dicom

.PHONY: install check audit constraints test viewer pictures demo bench soak fuzz format clean

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
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive .

# Known vulnerabilities of what is deployed: asks the advisory database of PyPI, so not part of check.
audit: install
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement deploy/constraints.txt

# The exact versions that were tested, for deployment. Commit the result.
constraints: install
	$(BIN)/python deploy/write_constraints.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# The prebuilt viewer from the npm registry that npm is set up for, without its source maps.
viewer: $(VIEWER)/index.html

$(VIEWER)/index.html:
	rm -rf .viewer && mkdir -p .viewer/new
	npm pack --silent --pack-destination .viewer @ohif/app@$(OHIF)
	echo "$(OHIF_SHA256)  .viewer/ohif-app-$(OHIF).tgz" | sha256sum --check --quiet
	tar -xzf .viewer/ohif-app-$(OHIF).tgz -C .viewer/new --strip-components 2 --exclude '*.map' package/dist
	rm .viewer/ohif-app-$(OHIF).tgz
	mv .viewer/new $(VIEWER)

pictures: install viewer
	CXR_PICTURES=docs/viewer $(BIN)/python -m pytest tests/acceptance/test_in_the_viewer.py

demo: install
	$(BIN)/cxr-worker demo $(if $(IMAGES),--images $(IMAGES))

bench: install
	$(BIN)/python -m tests.benchmarks

soak: install
	$(BIN)/python -m tests.soak --write docs/reliability.md

# An hour of one core. Guided by coverage where atheris has a wheel.
fuzz: install
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --minutes 60 --write docs/fuzzing.md

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
