# Two commands do everything: `make run` and `make test`. The rest are for people who work on the broker.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run test kills check format bench example clean

run: $(VENV)/.ready  ## Start the broker with the shipped config.toml
	@$(BIN)/broker run --config config.toml --welcome

test: $(VENV)/.ready  ## Run every test, with coverage; installs RabbitMQ for it where it can
	@sh tests/services.sh
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report --include='broker/*,connectors/*' --fail-under=95
	@$(BIN)/python -m coverage report --include='cli/*'

kills: $(VENV)/.ready  ## Kill the broker 50 times under load; make kills KILLS=200 SEED=7
	@sh tests/services.sh
	@$(BIN)/python -m pytest tests/system/test_kills.py -o faulthandler_timeout=0 \
	  --kills=$(or $(KILLS),50) --kills-seed=$(or $(SEED),1) $(PYTEST_ARGS)

check: $(VENV)/.ready  ## Lint, format, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready  ## Print the benchmarks, as ratios side by side
	$(BIN)/python -m benchmarks

example: $(VENV)/.ready  ## make example NAME=chat, or another one in examples/
	$(BIN)/python -m examples.$(NAME)

# pip checks the lock's hashes; the project itself is installed without looking for anything else.
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "this needs Python 3.11 or later; point PYTHON= at one"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "python3 lacks its venv module; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache
