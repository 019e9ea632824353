# Every target does its own set-up: a virtual environment in .venv with pinned versions. The second time that
# takes seconds. `make demo` needs nothing but Python 3.10 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_PROMPT ?= a penguin wearing a red hat
DEMO_OUT ?= runs/demo

.PHONY: help demo test test-slow lint format types ci clean

help:
	@echo "make demo    install, and turn \"$(DEMO_PROMPT)\" into a 3D object (about 2 minutes)"
	@echo "make test    install, and run the fast tests        (make test-slow: the slow ones too)"
	@echo "make lint    ruff       make types   pyright       make ci   all checks"

# Without an NVIDIA GPU the CPU build of torch saves gigabytes; pip prefers it where its index can be reached.
# Set PIP_ARGS to decide for yourself.
TORCH_CPU := https://download.pytorch.org/whl/cpu
PIP_ARGS ?= $(shell [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && \
	curl -sfm 5 -o /dev/null $(TORCH_CPU)/torch/ && echo --extra-index-url $(TORCH_CPU))

# Stamps are newer than what they depend on as long as nothing has to be installed again. The developers'
# environment contains the users', so its stamp serves both.
$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.installed

# Programs of other people that tests run on our files, where npm is; without a network the tests do without them,
# unless REWARDSDS_CLIENTS=required.
CLIENTS := tests/clients
$(CLIENTS)/node_modules/.package-lock.json: $(CLIENTS)/package.json $(CLIENTS)/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix $(CLIENTS) --no-audit --no-fund --silent || \
		echo "npm could not install $(CLIENTS): tests that need it are skipped"; fi

demo: $(VENV)/.installed
	$(BIN)/rewardsds 3d "$(DEMO_PROMPT)" --reward-steps 300 --out $(DEMO_OUT) --force
	@echo "open $(DEMO_OUT)/report.html in a browser"

test: $(VENV)/.installed-dev $(CLIENTS)/node_modules/.package-lock.json
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m simulated

test-slow: $(VENV)/.installed-dev $(CLIENTS)/node_modules/.package-lock.json
	$(BIN)/python -m pytest -m "not cuda and not simulated"
	$(BIN)/python -m pytest -m simulated

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/pyright

ci:
	.ci/run

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist build
