# Every verb does its own set-up. The machine needs Python >= 3.11 (with venv) and make; all else goes into .venv.
#
#   make demo     the questionnaire, from scrambled page arrivals to computed scores; on private servers of its own with
#                 STORAGE=postgresql (or redis, sqlite, a URL) RUNNER=celery (or threads), and KILL=1 kills workers
#   make test     the tests, a file to each processor       (ARGS="-k cascade" or ARGS="-n 0" reach pytest)
#   make check    everything that a change must pass: lint, format, types, floors, tests, coverage of the core
#   make soak     the tests that take minutes
#   make chaos    kill, restart, pause and cut off whatever can be, and prove that nothing was lost: the short form
#                 (KILLS=1000 the long one; STORAGE=postgresql,redis,valkey,sqlite BROKER=redis,rabbitmq: which)
#   make docs     the README's and docs' examples, run; their links, followed
#   make format   rewrite the code in the house's form
#   make bench    the figures
#   make clean    remove what the others left behind (but not .venv)

.PHONY: demo test check soak chaos docs format bench clean
.NOTPARALLEL:

comma := ,
BIN := .venv/bin
RUNS := .venv/.installed-to-run
DEV := .venv/.installed-to-develop
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-input --constraint constraints.txt

# Asked by running it: a name on PATH may be a shim that starts nothing. `make PYTHON=…` chooses another.
PYTHON = $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$name"; break; }; done)

# The tests by which all of the core is run, in one process: what other processes run is not measured.
DECIDE := tests/core tests/storages/test_memory.py tests/testing/test_harness.py tests/scenarios/test_reviews.py tests/scenarios/test_task_face.py

# Servers and Celery come with what developing needs.
demo: $(if $(STORAGE)$(RUNNER),$(DEV),$(RUNS))
	@$(BIN)/triggers demo $(if $(STORAGE),--storage '$(STORAGE)') $(if $(RUNNER),--runner '$(RUNNER)') \
		$(if $(KILL),--kill-workers) $(ARGS)

# In their order, so that the campaign's processes are forked from young ones.
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

# The counts are printed, each storm's as a line of JSON.
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

# Whoever can develop can run.
$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(RUNS)
