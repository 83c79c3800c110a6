# From a bare clone with python3 (3.11 or newer) and make: every target sets up what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin
# Files are compiled when they are first imported, and kept so in .venv: many of them never are.
unexport PYTHONDONTWRITEBYTECODE
# Pins hold for what a build needs too, and pip takes them from there. A kernel that is left out once would stay so:
# of JOULEWISE_KERNEL only `native`, which makes a failed build an error, reaches an installation.
CONSTRAINED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
INSTALL := $(CONSTRAINED) JOULEWISE_KERNEL=$(filter native,$(JOULEWISE_KERNEL)) \
  $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile
KERNEL := CMakeLists.txt $(wildcard build_backend/*.py src/kernel/*.cpp)
CXX_CHECK := -std=c++17 -O2 -ffp-contract=off -fPIC -pthread -Wall -Wextra -Wshadow -Wconversion -Werror

# What selects or encodes: the files whose tests run once more without the kernel, from an installed wheel.
KERNEL_TESTS := $(wildcard $(addprefix tests/test_,$(addsuffix .py, \
  select_laws random_rules budget_laws codec* compress_laws hand_computed_rounds energy_split \
  flower_grid flower_mod golden* fuzz* aggregate* native* kernel)))
# With the kernel the whole suite has run already: these see that the wheel's is found and used.
WHEEL_TESTS := $(filter %/test_kernel.py %/test_codec.py %/test_select_laws.py,$(KERNEL_TESTS))

.PHONY: demo test test-deployment test-wheel check bench fuzz aarch64

demo: .venv/.stamp-demo  ## a small study, its table and its report; run again, it shows the finished run
	$(BIN)/joulewise run studies/quickstart.toml --out runs/quickstart --resume --jobs 2

test: .venv/.stamp-dev  ## the whole suite; a file stays on one worker, which keeps its fixtures and its Ray apart
	$(BIN)/pytest -n 2 --dist loadfile --benchmark-disable -m 'not deployment'

# Its processes take both cores, so these tests run one after another, and not beside others.
test-deployment: .venv/.stamp-dev  ## a real SuperLink with TLS and three SuperNodes on loopback, two of which break down
	$(BIN)/pytest -m deployment $(wildcard tests/test_flower_*.py)

test-wheel: .venv/.stamp-dev  ## the kernel's tests from an installed wheel, with the kernel and without it
	@rm -rf .venv/wheel && $(CONSTRAINED) JOULEWISE_KERNEL=native $(BIN)/python -m pip wheel --quiet --no-deps \
	  --no-build-isolation --wheel-dir .venv/wheel .
	@$(BIN)/python -m venv --clear --without-pip .venv/installed
	@$(BIN)/python -m pip --python .venv/installed/bin/python install --quiet --no-deps .venv/wheel/*.whl
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$(.venv/installed/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
	JOULEWISE_KERNEL=native .venv/installed/bin/python -m pytest -n 2 --dist loadfile $(WHEEL_TESTS)
	JOULEWISE_KERNEL=numpy .venv/installed/bin/python -m pytest -n 2 --dist loadfile $(KERNEL_TESTS)

check: .venv/.stamp-dev  ## format, lint, types, floors; the kernel without a warning
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror src/kernel/kernel.cpp tests/kernel/driver.cpp
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@if command -v $(CXX) >/dev/null; then set -x; $(CXX) $(CXX_CHECK) -c src/kernel/kernel.cpp -o /dev/null; \
	else echo "There is no C++ compiler here ($(CXX)): src/kernel was not checked."; fi

bench: .venv/.stamp-dev  ## speed, as ratios in one run
	$(BIN)/joulewise bench --quick
	$(BIN)/pytest benchmarks --benchmark-only

aarch64:  ## the kernel's results on aarch64 (under qemu) and without AVX2: the same bits as here
	bash tests/kernel/platforms.sh --all

fuzz: .venv/.stamp-dev  ## hostile payloads against the kernel's decoder, under its sanitizers
	$(BIN)/python benchmarks/fuzz.py 20000 --sanitize

.venv/.stamp-demo: EXTRAS := learning,flower,report
.venv/.stamp-dev: EXTRAS := all,test,check
.venv/.stamp-demo .venv/.stamp-dev: pyproject.toml constraints.txt $(KERNEL) | $(BIN)/python
	@echo "Installing joulewise[$(EXTRAS)] into .venv; the first time takes two to four minutes."
	@$(INSTALL) -e '.[$(EXTRAS)]'
	@$(BIN)/python -c 'import joulewise.runs, altair, flwr_datasets.partitioner, sklearn.model_selection'
	@env -u JOULEWISE_KERNEL $(BIN)/joulewise --version
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
