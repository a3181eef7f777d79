# make demo    install into .venv and see the main job on real data
# make test    install what the tests need and run them
# make docs    the documentation as a site: open site/index.html
# make check   lint, types and tests, which build the documentation: what has to pass before a change goes in
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
DEV := -c constraints.txt -e ".[demo,report,postgres,ray,dashboard,docs,dev]"

# The tests start hundreds of processes. Where the environment says that compiled code is not to be written, as images of
# containers do, each of them would compile torch and the package anew, for seconds.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test docs types check format clean

demo: .venv/.demo
	$(BIN)/autoinit demo

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

types: .venv/.dev
	$(BIN)/mypy

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) -j2 types test

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and by itself, so that pip takes the build it finds for this machine; the rest then fits to it.
.venv/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q --no-compile "$$(grep '^torch==' constraints.txt)"
	touch $@

.venv/.demo: .venv/.torch pyproject.toml
	$(PIP) install -q -c constraints.txt -e ".[demo]"
	touch $@

# uv takes seconds where pip takes minutes. It reads none of pip's settings: where it cannot do it, pip does.
.venv/.dev: .venv/.torch pyproject.toml
	$(PIP) install -q "$$(grep '^uv==' constraints.txt)"
	$(BIN)/uv pip install -q --python $(BIN)/python $(DEV) || $(PIP) install -q $(DEV)
	touch $@

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache site
