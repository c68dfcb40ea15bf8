# Everything runs in .venv, which the first target to need it makes.
#   make demo    the main job on every device that is here
#   make test    all tests           make lint    ruff and mypy
#   make bench   canao beside its peers (an environment of its own for them)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test nightly lint bench setup clean

demo: setup
	$(BIN)/canao demo

# Two workers for two cores; --dist worksteal keeps them both busy to the end.
test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

nightly: setup
	CANAO_HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --collect-only -qq >/dev/null

bench: setup
	$(BIN)/python benchmarks/setup_peers.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/compile_time.py
	$(BIN)/python benchmarks/measuring.py
	$(BIN)/python benchmarks/sparsity.py
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/weight_only.py
	$(BIN)/python benchmarks/arm.py
	$(BIN)/python benchmarks/predictor.py
	$(BIN)/python benchmarks/controllers.py

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/setup_system.sh
	bash scripts/setup_system.sh
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all]'
	$(BIN)/canao devices --fetch qemu >/dev/null || echo "setup: the device qemu will be missing"
	touch $@

clean:
	rm -rf $(VENV) .venv-peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
