# `make demo` and `make test` are the two commands a newcomer needs; each makes the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all lint bench clean

$(STAMP): pyproject.toml constraints.txt $(wildcard kernels/*.cpp kernels/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt 'torch' 'torchvision' 'setuptools>=77'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

demo: $(STAMP)
	$(BIN)/kat-zoo demo --out demo

test: $(STAMP)
	$(BIN)/pytest -m 'not slow and not gpu'

test-all: test
	$(BIN)/pytest -m 'slow and not gpu'

lint: $(STAMP)
	$(BIN)/ruff check .
	rm -rf build && CC=false CXX=false $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/lint .
	cd build/lint && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p kat_zoo

# Regenerates the figures the README quotes; about 20 minutes on 2 quiet cores.
bench: $(STAMP)
	$(BIN)/python benchmarks/rational.py
	$(BIN)/python benchmarks/kat_model.py
	$(BIN)/python benchmarks/fourier_attention.py
	$(BIN)/python benchmarks/kan_formula.py --seeds 20 --targets toy
	$(BIN)/python benchmarks/atlas.py
	$(BIN)/kat-zoo kernels report --json benchmarks/kernels.json
	$(BIN)/python benchmarks/lp_ft.py
	$(BIN)/python benchmarks/resume.py
	$(BIN)/python benchmarks/loader.py --passes 2

clean:
	rm -rf build *.egg-info $(VENV)
