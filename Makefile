# `make demo` and `make test` need nothing but a Python 3.11 or newer and pip's index.
PYTHON ?= python3
VENV := .venv
VENV_ONEDL := .venv-onedl
BIN := $(VENV)/bin

# One thread a worker: two workers on two cores, and the same sums on every machine.
PYTEST := -m pytest -n 2 --dist loadfile
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help demo bank bench speed zoo test test-slow test-onedl conformance backbones campaign lint docs pretrain \
	clean

help:
	@echo 'make demo        fine-tune GLEAM-L on handwritten digits (a few minutes on two cores)'
	@echo 'make bank        five small adapters on one backbone, asked in one stream (minutes)'
	@echo 'make bench       MiniVTAB: the sweeps of both editions, and their pages (hours; can be resumed)'
	@echo 'make speed       what steps cost, and benchmarks/SPEED.md (an hour and a half on one core)'
	@echo 'make zoo         train what zoo/ lacks, and write its index and metafile (half an hour)'
	@echo 'make test        the test suite'
	@echo 'make test-slow   what it leaves out for the sake of time'
	@echo 'make test-onedl  the same on the maintained forks of the OpenMMLab wheels'
	@echo 'make backbones   what every family of backbones can do, written to docs/backbones.md'
	@echo 'make conformance what methods do on every backbone, written to docs/conformance.md'
	@echo 'make campaign    kill trainings, damage files, read hostile ones, make mistakes (minutes)'
	@echo 'make lint        ruff, mypy and hadolint, as CI runs them'
	@echo 'make docs        the site, into build/docs'
	@echo 'make pretrain    make the embedded backbones again (long)'
	@echo 'make clean       remove the virtual environments'

# The stamps are written last, so that an interrupted installation is taken up again.
$(VENV)/.runtime: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt requirements/serve.txt
	$(BIN)/python -m pip install -r requirements/dev.txt -r requirements/serve.txt
	touch $@

$(VENV)/deepspeed/.stamp: $(VENV)/.dev requirements/deepspeed.txt
	$(BIN)/python -m pip install --no-deps --target $(@D) --upgrade -r requirements/deepspeed.txt
	touch $@

$(VENV)/.docs: $(VENV)/.dev requirements/docs.txt
	$(BIN)/python -m pip install -r requirements/docs.txt
	touch $@

$(VENV_ONEDL)/.dev: requirements/onedl.txt requirements/dev.txt requirements/serve.txt pyproject.toml
	$(PYTHON) -m venv $(VENV_ONEDL)
	$(VENV_ONEDL)/bin/python -m pip install -r requirements/onedl.txt -r requirements/dev.txt \
		-r requirements/serve.txt
	$(VENV_ONEDL)/bin/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

demo: $(VENV)/.runtime
	$(BIN)/python tools/train.py configs/gleam/vit-mini_gleam-l_mini-digits.py

bank: $(VENV)/.runtime
	$(BIN)/python benchmarks/bank_demo.py

# Sweeps go on where they were stopped, so that this can be interrupted and called again.
SWEEPS := minivtab-rates minivtab minivtab-wirings minivtab-ablations minivtab-second-rates \
	minivtab-others minivtab-newer-rates minivtab-newer \
	minivtab-tuned minivtab-tuned-rivals minivtab-tuned-others
bench: $(VENV)/.dev
	$(BIN)/python tools/sweep.py estimate minivtab
	for sweep in $(SWEEPS); do \
		$(BIN)/python tools/sweep.py run $$sweep --workers 2 || exit 1; \
	done
	$(BIN)/python benchmarks/minivtab/collect.py
	$(BIN)/python benchmarks/minivtab/page.py

# Counts are made anew, and take a minute or two; what step.csv has is not measured again.
speed: $(VENV)/.dev
	$(BIN)/python benchmarks/arithmetic.py
	$(BIN)/python benchmarks/launches.py
	$(BIN)/python benchmarks/mixture.py --threads 1
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/step.py --threads 1 --minutes 60
	$(BIN)/python benchmarks/speed.py

# A config a training; to train one again, remove its adapter. Interrupted ones go on.
zoo: $(patsubst %.py,%.safetensors,$(wildcard zoo/*.py))
	$(BIN)/python tools/report.py --metafiles

zoo/%.safetensors: | zoo/%.py $(VENV)/.runtime
	$(TEST_ENV) $(BIN)/python tools/train.py zoo/$*.py --work-dir work_dirs/zoo/$* --resume auto
	cp work_dirs/zoo/$*/adapter.safetensors $@

test: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python $(PYTEST) -m 'not slow'

test-slow: $(VENV)/.dev $(VENV)/deepspeed/.stamp
	$(TEST_ENV) $(BIN)/python $(PYTEST) -m slow
	$(TEST_ENV) PYTHONPATH=$(VENV)/deepspeed $(BIN)/python -m pytest tests/engine/test_zero.py

test-onedl: $(VENV_ONEDL)/.dev
	$(TEST_ENV) $(VENV_ONEDL)/bin/python $(PYTEST)

conformance: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python $(PYTEST) tests/conformance --write-conformance

backbones: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python tests/layouts/backbone_table.py

campaign: $(VENV)/.dev
	$(TEST_ENV) $(BIN)/python tests/campaign/kills.py --kills 36 --seed 0
	$(TEST_ENV) $(BIN)/python tests/campaign/kills.py --kills 60 --seed 1
	$(TEST_ENV) $(BIN)/python tests/campaign/flips.py --flips 200 --seed 0
	$(TEST_ENV) $(BIN)/python tests/campaign/hostile.py --files 300 --seed 0
	$(TEST_ENV) $(BIN)/python tests/campaign/processes.py
	$(TEST_ENV) $(BIN)/python tests/campaign/mistakes.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs build/docs

pretrain: $(VENV)/.runtime
	$(BIN)/python tools/pretrain.py configs/pretrain/vit-mini_procedural.py
	$(BIN)/python tools/pretrain.py configs/pretrain/swin-mini_procedural.py

clean:
	rm -rf $(VENV) $(VENV_ONEDL)
