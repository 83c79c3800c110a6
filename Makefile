# From a bare clone with python3 (3.11 or newer) and make: every target sets up what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
# Files are compiled when they are first imported, and kept so in .venv: many of them never are.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test check bench fuzz

demo: .venv/.stamp-demo  ## a small study, its table and its report; run again, it shows the finished run
	$(BIN)/joulewise run studies/quickstart.toml --out runs/quickstart --resume --jobs 2

test: .venv/.stamp-dev  ## the whole suite; a file stays on one worker, which keeps its fixtures and its Ray apart
	$(BIN)/pytest -n 2 --dist loadfile --benchmark-disable

check: .venv/.stamp-dev  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: .venv/.stamp-dev  ## speed, as ratios in one run
	$(BIN)/pytest benchmarks --benchmark-only

fuzz: .venv/.stamp-dev  ## hostile payloads against the kernel's decoder, under its sanitizers
	$(BIN)/python benchmarks/fuzz.py 20000 --sanitize

.venv/.stamp-demo: EXTRAS := learning,flower,report
.venv/.stamp-dev: EXTRAS := all,test,check
.venv/.stamp-demo .venv/.stamp-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing joulewise[$(EXTRAS)] into .venv; the first time takes two to four minutes."
	@$(INSTALL) -e '.[$(EXTRAS)]'
	@$(BIN)/python -c 'import joulewise.runs, altair, flwr_datasets.partitioner, sklearn.model_selection'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
