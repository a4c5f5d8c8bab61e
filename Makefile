# `make demo` and `make test`: each makes .venv when needed, with pinned packages, and is safe to repeat.
# PYTHON picks the interpreter (3.11 to 3.13), EXTRA the build of DALI (cpu, cuda12, cuda13), PIP_ARGS goes to pip.

PYTHON ?= python3
EXTRA ?= cpu
PIP_ARGS ?=
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)

.PHONY: demo test clean

demo: .venv/.demo-$(EXTRA)
	.venv/bin/attengait demo --out demo

test: .venv/.test-$(EXTRA)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pytest -q -n 2 --dist worksteal

# Made anew for another EXTRA: two builds of DALI in one environment overwrite each other.
.venv/.demo-$(EXTRA): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed; choose one with PYTHON=")'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[$(EXTRA)]'
	touch $@

.venv/.test-$(EXTRA): .venv/.demo-$(EXTRA)
	$(PIP) --editable '.[$(EXTRA),keras,report,test]'
	touch $@

clean:
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
