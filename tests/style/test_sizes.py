"""A file of more than 400 lines is a question. The files for which the answer is "yes" are listed here."""

from __future__ import annotations

import pytest

from tests.style.sources import ROOT

#: Files with more lines than this need a reason.
LINES = 400

FOLDERS = ("src", "tests", "bench")
SUFFIXES = {".py", ".sql", ".lua"}

#: Why a file is longer. "To split" is not a reason to keep it but says how it will become shorter.
LONGER = {
    "src/triggers/core/values.py": "The codec of values: what is stored as what, in one place.",
    "src/triggers/testing/conformance/runners.py": "One suite: the promises of runners, in the order of their contract.",
    "src/triggers/core/decisions/unit_of_work.py": "One run of a decision: what it knows, and the steps that decisions share.",
    "src/triggers/logs/logger.py": "One class: every method of `logging.Logger` that records.",
    "src/triggers/app.py": "The public methods of an application, with their contracts.",
    "src/triggers/logs/sanitizing/walk.py": "One recursive walk over any value, with a case for each kind of container.",
    "src/triggers/manager.py": "The public methods of a session, sync and async, with their contracts.",
    "src/triggers/runners/celery/runner.py": "One adapter to Celery: what it registers, sends and listens to.",
    "src/triggers/session.py": "The views that users read a session through, which refer to one another.",
    "src/triggers/task.py": "What an author of tasks writes or receives, in one file.",
    "src/triggers/storages/base.py": "The contract of a storage: mostly docstrings.",
    "src/triggers/storages/memory.py": "The storage that people read first; one file shows all of it.",
    "src/triggers/storages/postgres/storage.py": "Every method of the storage contract, each with its statement.",
    "src/triggers/storages/postgres/statements.sql": "Every statement of the storage, each with its reason.",
    "src/triggers/storages/sqlite/storage.py": "Every method of the storage contract, each with its statement.",
    "src/triggers/testing/conformance/claims.py": "One suite: the promises about claims, in the order of the contract.",
    "src/triggers/storages/sqlite/file.py": "One class: the connections to one file, what they check, and the errors of the driver.",
    "src/triggers/testing/conformance/commits.py": "One suite: the promises about commits, in the order of the contract.",
    "src/triggers/core/rules.py": "What a rule and a rule set are, and how both are read from what is stored.",
    "src/triggers/testing/conformance/timing.py": "One suite: the promises about time, in the order of the how-to.",
    "src/triggers/testing/conformance/machine.py": "One state machine for Hypothesis, with a rule for each step of the protocol.",
    "src/triggers/testing/conformance/model.py": "The reference model, which must be readable from top to bottom.",
    "src/triggers/testing/servers/proxy.py": "One proxy with the ways in which a network fails.",
    "tests/chaos/campaign.py": "One program: the storm, from the first process to its report.",
    "tests/core/test_configuration.py": "A test for each problem that a configuration can have.",
    "tests/crash/test_mutants.py": "A mutant for each safeguard of the protocol.",
    "tests/crash/test_poison.py": "To split: tasks that kill their process, and processes that are stopped.",
    "tests/demo/test_demo.py": "One scenario, the questionnaire, seen from all sides.",
    "tests/fuzz/junk.py": "A list of hostile values.",
    "tests/logs/test_exceptions.py": "A test for each thing that an exception can carry.",
    "tests/logs/test_sanitize.py": "A test for each kind of value and each limit.",
    "tests/logs/test_withstand.py": "A test for each way in which logging could harm a task.",
    "tests/runners/test_celery_runner.py": "To split by behavior: registering, sending, running eagerly.",
    "tests/scenarios/test_joined.py": "The same scenarios for every kind of connection.",
    "tests/scenarios/test_reviews.py": "To split: reviews, purges, and storages that are unavailable.",
    "tests/simulation/world.py": "One simulated world: its clock, its processes, its scheduler.",
    "tests/storages/test_connections.py": "A test for each way in which a connection can end.",
    "tests/storages/test_postgres_commits.py": "To split: round trips, and answers that get lost.",
    "tests/storages/test_redis_outages.py": "To split by the kind of outage.",
    "tests/storages/test_sqlite_file.py": "To split: several processes, full disks, files of other programs.",
    "tests/version2/test_programs.py": "One file of programs, with the tasks that they share.",
    "tests/testing/test_faults.py": "A test for each kind of fault that can be injected.",
}

SIZES = {
    path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES
}


def test_long_files_are_listed():
    """A file that has become too long does two things, or has a reason that is listed."""
    assert {path: lines for path, lines in SIZES.items() if lines > LINES and path not in LONGER} == {}


@pytest.mark.parametrize("path", LONGER)
def test_a_listed_file_is_long(path):
    """A file that is short now, or was moved, must be removed from the list."""
    assert SIZES.get(path, 0) > LINES
