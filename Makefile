# make help shows the targets.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
TAMIZ := $(BIN)/tamiz

.DEFAULT_GOAL := help
.PHONY: help install demo test lint types floors unit tools docs requirements benchmarks clean

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 16

# A stamp file a set of requirements: an environment is rebuilt only when its file changes.
$(VENV)/.base: requirements/base.txt pyproject.toml
	@echo "installing into $(VENV), about a minute"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/base.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/torch.txt requirements/encoders.txt $(wildcard packages/*/model/training.json) \
		$(VENV)/.base
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/encoders.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation packages/*/
	@touch $@

install: $(VENV)/.base  ## Make a virtual environment with Tamiz; encoders need an extra beside it
	@echo "Tamiz is ready: $(TAMIZ) --help"

demo: $(VENV)/.base  ## From nothing to a served champion on real film-review snippets
	@$(BIN)/python examples/film_snippets/demo.py

test: lint types floors unit  ## Everything that must hold before a commit

lint: $(VENV)/.dev  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## Types
	$(BIN)/mypy

floors: $(VENV)/.dev  ## Which module may import which
	$(BIN)/lint-imports

unit: $(VENV)/.dev  ## Tests, with branch coverage
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term-missing:skip-covered

# Tools whose pins clash with ours have an environment each; `make test` runs without them, and skips what needs them.
.tools/kserve/.done: requirements/tools/kserve.txt
	@echo "installing KServe's client into .tools/kserve, a minute or two"
	@test -x .tools/kserve/bin/python || $(PYTHON) -m venv .tools/kserve
	@.tools/kserve/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools/kserve.txt
	@touch $@

tools: .tools/kserve/.done  ## Environments of tools whose pins clash with ours: KServe's client

docs: $(VENV)/.base  ## Write the generated pages: the project file's reference and schema
	$(BIN)/python docs/generate.py

# Pins keep their extras: with hashes, pip refuses an extra that only a dependency asks for once a newer release is out.
requirements: $(VENV)/.dev  ## Pin the newest allowed versions
	bin="$$(cd $(BIN) && pwd)" && cd requirements && for name in base dev tools/kserve; do \
	  "$$bin/pip-compile" --quiet --no-strip-extras --generate-hashes --allow-unsafe \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
	  --resolver=backtracking --output-file $$name.txt $$name.in || exit; done

benchmarks: $(VENV)/.dev  ## Accuracy, speed and memory (needs TAMIZ_DATA)
	$(BIN)/python -m benchmarks

clean:  ## Take away environments, caches and the demo
	rm -rf $(VENV) .tools demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
