# Every target does its own setup. You need Python >= 3.11 (with venv) and make; everything else is installed into .venv.
#
#   make demo     run the questionnaire, from scrambled page arrivals to computed scores; on private servers with
#                 STORAGE=postgresql (or redis, sqlite, a URL) RUNNER=celery (or threads); KILL=1 kills workers
#   make test     run the tests, one file per processor at a time (ARGS="-k cascade" or ARGS="-n 0" are passed to pytest)
#   make check    run everything that a change must pass: lint, format, types, layers, tests, coverage of the core
#   make soak     run the tests that take minutes
#   make chaos    kill, restart, pause and disconnect processes and prove that nothing was lost: the short form
#                 (KILLS=1000 runs the long one; STORAGE=postgresql,redis,valkey,sqlite BROKER=redis,rabbitmq select)
#   make docs     run the examples in the documents and check their links
#   make format   format the code
#   make bench    run the benchmarks
#   make clean    delete what the other targets left behind (but not .venv)

.PHONY: demo test check soak chaos docs format bench clean
.NOTPARALLEL:

comma := ,
BIN := .venv/bin
RUNS := .venv/.installed-to-run
DEV := .venv/.installed-to-develop
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-input --constraint constraints.txt

# Run each candidate: a name on PATH may be a shim that starts nothing. `make PYTHON=…` chooses another Python.
PYTHON = $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$name"; break; }; done)

# The tests that run all of the core in one process: coverage does not measure other processes.
DECIDE := tests/core tests/storages/test_memory.py tests/testing/test_harness.py \
	tests/scenarios/test_reviews.py tests/scenarios/test_managers.py tests/scenarios/test_unheard.py tests/test_options.py $(wildcard tests/scenarios/test_task_*.py)

# The development environment contains the servers and Celery.
demo: $(if $(STORAGE)$(RUNNER),$(DEV),$(RUNS))
	@$(BIN)/triggers demo $(if $(STORAGE),--storage '$(STORAGE)') $(if $(RUNNER),--runner '$(RUNNER)') \
		$(if $(KILL),--kill-workers) $(ARGS)

# Keep the order of the tests, so that the campaign forks its processes from young ones.
test: $(DEV)
	@$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(DEV)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m coverage run -m pytest --quiet $(DECIDE)
	@$(BIN)/coverage report --include='src/triggers/core/*' --fail-under=100
	@$(MAKE) --no-print-directory test

soak: $(DEV)
	@$(BIN)/python -m pytest -m slow --timeout=3600 $(ARGS)

# Each storm prints its counts as a line of JSON.
chaos: $(DEV)
ifdef KILLS
	@TRIGGERS_CHAOS_KILLS=$(KILLS) $(if $(STORAGE),TRIGGERS_CHAOS_STORAGES=$(STORAGE)) $(if $(BROKER),TRIGGERS_CHAOS_BROKERS=$(BROKER)) \
	$(BIN)/python -m pytest tests/chaos -m slow --timeout=14400 -s $(ARGS)
else
	@$(BIN)/python -m pytest tests/chaos -s $(if $(STORAGE),-k "$(subst $(comma), or ,$(STORAGE))") $(ARGS)
endif

docs: $(DEV)
	@$(BIN)/python -m pytest tests/docs $(ARGS)

format: $(DEV)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(DEV)
	@$(BIN)/python -m bench $(ARGS)

clean:
	@rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./.venv -prune -o -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python='$(PYTHON)'; test -n "$$python" || { \
	echo 'Python >= 3.11 with its venv module is needed (on Debian: python3-venv). Name it: make PYTHON=/path/to/python3' >&2; exit 1; }; \
	"$$python" -m venv --clear .venv

$(RUNS): pyproject.toml constraints.txt | $(BIN)/python
	@$(INSTALL) --editable .
	@touch $@

# The development environment includes everything that running needs.
$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(RUNS)
