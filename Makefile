# Two cores, Python 3.11 or later, make. Nothing else has to be installed.
#
#   make demo    environment, first tutorial against a fresh sandbox, the numbers
#   make lab     JupyterLab on that tutorial
#   make test    the test suite; make test-all the long tests and those in a real browser
#   make lint    ruff, mypy, import contracts
#   make bench   benchmarks, with their raw logs
#
# PYTHON=python3.12        another interpreter
# TORCH_INDEX=<url>        another build of torch (an index that serves it; for example the
#                          CPU-only or a CUDA index that PyTorch's site names)

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
STAMP := $(VENV)/.installed
VERSIONS := $(patsubst tests/ui/versions/%.txt,$(VENV)/versions/%/.installed,$(wildcard tests/ui/versions/*.txt))

.PHONY: demo lab test test-all lint bench panel clean env versions

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; choose one with make PYTHON=python3.12"; exit 1; }
	@echo "== 1/3 virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== 2/3 $(TORCH) (the largest part; a few minutes on a slow line)"
	@$(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@echo "== 3/3 truststram-lab and what it needs"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@$(PIP) install --quiet --no-deps --target $(VENV)/oracles -r tests/learning/oracles.txt \
	  -r tests/explainability/oracles.txt
	@mkdir -p $(VENV)/share/jupyter/labextensions $(VENV)/etc/jupyter/jupyter_server_config.d
	@rm -rf $(VENV)/share/jupyter/labextensions/truststram-lab # pip copies the bundle of that moment
	@ln -sfn "$(CURDIR)/truststram_lab/labextension" $(VENV)/share/jupyter/labextensions/truststram-lab
	@cp truststram_lab/_jupyter/server-config/*.json $(VENV)/etc/jupyter/jupyter_server_config.d/
	@touch $@

# Other versions of Jupyter, laid over the environment: a few megabytes and seconds each.
versions: $(VERSIONS)

$(VENV)/versions/%/.installed: tests/ui/versions/%.txt $(STAMP)
	@rm -rf $(@D)
	@$(PIP) install --quiet --no-deps --target $(@D) -r $<
	@touch $@

demo: $(STAMP)
	@$(BIN)/truststram-lab demo

lab: $(STAMP)
	@$(BIN)/truststram-lab lab

test: $(STAMP)
	$(BIN)/python -m pytest --ignore=tests/ui -m "not long" -n 2 --dist loadfile $(PYTEST_ARGS)

test-all: $(STAMP) versions
	$(BIN)/python -m pytest --ignore=tests/ui -m long $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/ui $(PYTEST_ARGS)

# Build the JupyterLab extension anew (node 20); the bundle is committed.
panel: $(STAMP)
	cd labextension && export PATH="$(CURDIR)/$(BIN):$$PATH" && jlpm install --immutable \
	  && jlpm types && jlpm build:prod

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
