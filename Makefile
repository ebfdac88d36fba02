# `make demo` runs the whole pipeline, `make test` the whole test suite. Each sets up .venv when it is missing or outdated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process for each core, and therefore one thread in each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The assertions of tests are compiled once, not in each process of each run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint tests fast-tests long coverage docs package benchmark faults dev clean
.DELETE_ON_ERROR:

demo: $(VENV)/demo.stamp
	$(BIN)/sasv demo $(if $(CORPUS),--corpus "$(CORPUS)" --out demo-real,--out demo) $(ARGS)

# Lint, types, and every test but the long ones, side by side: about seven minutes on two cores.
test: $(VENV)/dev.stamp
	$(MAKE) --no-print-directory -j 2 lint tests

# Lint, types, and the fast tests, side by side: less than two minutes on two cores.
check: $(VENV)/dev.stamp
	$(MAKE) --no-print-directory -j 2 lint fast-tests

# Tests of ten seconds and more that make test leaves out, and CI runs: every encoder exported, benchmarks, notebooks, torch.compile.
long: $(VENV)/dev.stamp
	$(PYTEST) -m long $(ARGS)

tests: $(VENV)/dev.stamp
	$(PYTEST) $(ARGS)

fast-tests: $(VENV)/dev.stamp
	$(PYTEST) -m "not slow and not long" $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every test with branch coverage; fails below the floor in pyproject.toml.
coverage: $(VENV)/dev.stamp
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html:build/coverage $(ARGS)

# The documentation site, in build/docs; a warning is an error.
docs: $(VENV)/dev.stamp
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

# The sdist and the wheel, in dist. The wheel is installed into two fresh environments and run: with PyTorch, which exports the
# model in the package, and without, where ONNX Runtime runs the export.
package: $(BIN)/python
	rm -rf dist build/fresh build/light build/compact.onnx
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build twine
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/fresh
	build/fresh/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(echo dist/*.whl)[export]"
	cd build && fresh/bin/python ../.ci/smoke.py && fresh/bin/sasv export compact compact.onnx
	$(PYTHON) -m venv build/light
	build/light/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(echo dist/*.whl)[runtime]"
	cd build && light/bin/python ../.ci/smoke_runtime.py compact.onnx

benchmark: $(VENV)/dev.stamp
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# Damaged files, kills, and full disks, for two hours or so; the figures go into build/faults. Fewer: ARGS="--audio 1000".
faults: $(VENV)/dev.stamp
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults --out build/faults $(ARGS)

# The environment alone.
dev: $(VENV)/dev.stamp

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("sasv needs Python 3.11 or later; set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing sasv[$*] into $(VENV) (a minute or two)"
	$(PIP) -e ".[$*]"
	$(if $(filter dev,$*),$(PIP) --no-deps cargan==0.0.4 Resemblyzer==0.1.4)
	$(if $(filter dev,$*),$(PIP) --no-deps pgserver==0.1.4 || echo "no pgserver for this Python: the test of pgvector is skipped")
	@touch $@

clean:
	rm -rf $(VENV) build demo demo-real
