# `make sweep`: pruning curves on embedded data. `make effect`: whether it is the router that makes them. `make exhibits`:
# every table and figure of the paper, and the report. `make paper DATA=folder`: the paper's grid on its own data.
# `make check`: lint, types, and the tests that take seconds at most and need no Ray, browser or cluster. `make test`: those too.
# `make faults`: 100,000 interleavings of processes and a store that fail, 10,000 inputs for every reader, 170 faults on
# processes over a store, 30 on real sweeps.
# `make cluster-test`: job submission and autoscaling, on heads that it starts. `make docs`: the site. `make wheel`: a wheel
# in dist/, with the sweep files in it. All build .venv first; only Python 3.11 and make are needed (the report's test:
# chromium, chromedriver).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STORAGE ?= storage
SEED ?= $(shell date +%s)
VENV := .venv
BIN := $(VENV)/bin
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: sweep effect exhibits paper check test faults cluster-test docs wheel clean

sweep: $(VENV)/installed
	$(BIN)/python sweeps/figure3_batch_size.py --storage $(STORAGE)

effect: $(VENV)/installed
	$(BIN)/python sweeps/effect.py --config sweeps/effect.toml --datasets digits,latent_factors_large --storage $(STORAGE)

exhibits: $(VENV)/installed
	$(BIN)/python sweeps/full_grid.py --storage $(STORAGE)
	$(BIN)/s3ray report --storage $(STORAGE) --output $(STORAGE)/report

# The paper's four files, in DATA=folder, from reading them to every printed number tested. OPTIONS: of the grid.
paper: $(VENV)/installed
	$(BIN)/s3ray data prepare --root $(DATA)
	$(BIN)/python sweeps/full_grid.py --data $(DATA) --storage $(STORAGE) $(OPTIONS)
	$(BIN)/s3ray compare --paper --storage $(STORAGE)

LINT = $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

check: $(VENV)/installed-dev
	$(LINT)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not ray and not browser and not cluster and not faults"

test: $(VENV)/installed-dev
	$(LINT)
	$(BIN)/python -m pytest $(PARALLEL)

# Other interleavings every time; SEED=number repeats those of a run.
faults: $(VENV)/installed-dev
	S3RAY_INTERLEAVINGS=100000 S3RAY_SEED=$(SEED) $(BIN)/python -m pytest --numprocesses 2 tests/store/test_protocol.py
	S3RAY_SEED=$(SEED) $(BIN)/python -m pytest $(PARALLEL) -m faults tests/faults

cluster-test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m cluster

# The pages of docs/, with what is made of the code: site/index.html.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: $(VENV)/installed
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

# torch first and by itself: its CPU build satisfies ray's and the package's ranges from then on.
$(VENV)/installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch>=2.13,<2.14"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
