# The two commands that matter: `make demo` and `make test`. Everything runs in .venv, which `make setup` makes.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Tests and benchmarks on real data find it here and skip where it is missing.
export RDREC_DATA ?= $(abspath ../shared/data)
# Packages are compiled when they are first imported; forbidden to keep that (as container images do), each of the
# hundred processes that the tests start would do it again: 5 seconds of CPU a service instead of 2, 8 for torch.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo demo-check test lint types bench format gpu-check clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(shell command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt --editable ".[train,serve,test]"
	touch $@

demo: setup ## train on the sample shop, serve on 127.0.0.1:8000, show one answer of each endpoint, stay up
	PATH="$(abspath $(BIN)):$$PATH" deploy/demo.sh

demo-check: setup ## the same, then stop
	PATH="$(abspath $(BIN)):$$PATH" deploy/demo.sh --check

work/demo/bundle:
	$(MAKE) demo-check

test: setup
	$(BIN)/pytest -n logical --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup work/demo/bundle ## every benchmark in its quick form, on the demo's bundle; each prints a table
	for script in benchmarks/*.py; do $(BIN)/python $$script --quick || exit 1; done

gpu-check: setup ## engines on the GPU beside the processor, one table; fails where there is no GPU
	$(BIN)/python benchmarks/gpu_check.py --bundle $(or $(BUNDLE),work/demo/bundle)

clean:
	rm -rf $(VENV) work build dist *.egg-info
