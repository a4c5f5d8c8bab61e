# `make demo` and `make test`: each makes .venv when needed, with pinned packages, and is safe to repeat.
# PYTHON picks the interpreter (3.11 to 3.13), EXTRA the build of DALI (cpu, cuda12, cuda13), PIP_ARGS goes to pip.

PYTHON ?= python3
EXTRA ?= cpu
PIP_ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)
KERNELS := $(shell find kernels -name '*.cpp' -o -name '*.cu' -o -name '*.h')
BENCH := build/bench
SEEDS := build/seeds

.PHONY: demo demo-seeds test tries lint types format docs-figures bench clean

demo: .venv/.demo-$(EXTRA)
	$(BIN)/attengait demo --out demo

# Three seeds of a training on walkers like the demo's, but other people: the curves of their validations. It takes half
# an hour or more. What is there already is used again.
demo-seeds: $(SEEDS)/walkers.zarr/zarr.json
	for seed in 0 1 2; do \
		$(BIN)/attengait train $(SEEDS)/walkers.zarr --out $(SEEDS)/seed-$$seed --preset demo \
			--set seed=$$seed --set validation_subjects=017-036 --set validate_every_steps=80 \
			$$(test -e $(SEEDS)/seed-$$seed/checkpoint.pt && echo --resume) || exit; \
	done
	$(BIN)/attengait runs $(SEEDS) --value validation/rank1

# A new .venv is no reason to make them again: that would remove the runs.
$(SEEDS)/walkers.zarr/zarr.json: | .venv/.demo-$(EXTRA)
	rm -rf $(SEEDS)
	mkdir -p $(SEEDS)
	$(BIN)/attengait synth $(SEEDS)/walkers --identity rhythm --seed 1 --subjects 36 --frames 40 \
		--walks nm-01,nm-02,nm-05,nm-06,bg-01,bg-02,cl-01,cl-02 --views 80,100
	$(BIN)/attengait preprocess casia-b --frames $(SEEDS)/walkers/rgb --silhouettes $(SEEDS)/walkers/silh \
		--out $(SEEDS)/walkers.zarr

# The last lines say how much of the code the tests run, with the files of which they run less than 80 %. What only runs
# in other processes is not counted.
test: lint types
	$(BIN)/pytest -q -n 2 --dist worksteal --cov --cov-report=
	@$(BIN)/coverage report --sort=cover | awk 'NR <= 2 || /^TOTAL/ || ($$NF ~ /%$$/ && $$NF + 0 < 80)'

# The tests as they are started on other machines; see tests/tries.sh.
tries: .venv/.test-$(EXTRA)
	tests/tries.sh

lint: .venv/.test-$(EXTRA)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/clang-format --dry-run -Werror $(KERNELS)

types: .venv/.test-$(EXTRA)
	$(BIN)/mypy

format: .venv/.test-$(EXTRA)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(KERNELS)

# Figures of the documentation, from the reports in benchmarks/results.
docs-figures: .venv/.test-$(EXTRA)
	$(BIN)/python -m attengait.benchmarks.figures README.md $(wildcard docs/*.md)

# A minute's look at the speed of training clips, from a small store of synthetic walkers.
bench: $(BENCH)/walkers.zarr/zarr.json
	$(BIN)/attengait benchmark loader $(BENCH)/walkers.zarr --batches 20 --repeats 3

$(BENCH)/walkers.zarr/zarr.json: .venv/.demo-$(EXTRA)
	rm -rf $(BENCH)
	mkdir -p $(BENCH)
	$(BIN)/attengait synth $(BENCH)/walkers --subjects 8 --walks nm-01,nm-02 --views 54,90 --frames 40
	$(BIN)/attengait preprocess casia-b --frames $(BENCH)/walkers/rgb --silhouettes $(BENCH)/walkers/silh \
		--out $(BENCH)/walkers.zarr

# Made anew for another EXTRA: two builds of DALI in one environment overwrite each other.
.venv/.demo-$(EXTRA): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed; choose one with PYTHON=")'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[$(EXTRA)]'
	touch $@

.venv/.test-$(EXTRA): .venv/.demo-$(EXTRA)
	$(PIP) --editable '.[$(EXTRA),onnx,report,test]'
	touch $@

clean:
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage .coverage.*
