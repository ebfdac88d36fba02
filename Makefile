# Two commands: `make demo` (the whole pipeline) and `make test`. Each sets up .venv when it is missing or outdated.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test benchmark clean
.DELETE_ON_ERROR:

demo: $(VENV)/demo.stamp
	$(BIN)/sasv demo $(if $(CORPUS),--corpus "$(CORPUS)" --out demo-real,--out demo) $(ARGS)

test: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(ARGS)

benchmark: $(VENV)/dev.stamp
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("sasv needs Python 3.11 or later; set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing sasv[$*] into $(VENV) (a minute or two)"
	$(PIP) -e ".[$*]"
	$(if $(filter dev,$*),$(PIP) --no-deps cargan==0.0.4 Resemblyzer==0.1.4)
	@touch $@

clean:
	rm -rf $(VENV) demo demo-real
