"""The commands that run tasks: sweep, work, demo."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time

import pytest

RULES = json.dumps(
    {"t_one": {"after": ["x"], "run": "survey.ok"}, "t_two": {"after": ["t_one"], "run": "survey.ok"}}
)
HANGS = json.dumps({"t_hang": {"after": ["x"], "run": "survey.hang"}})


def status(place, uid, name):
    """Where an instance stands."""
    return place.json("show", uid, name)["status"]


# -- sweep ----------------------------------------------------------------------------------------------


def test_a_sweep_of_a_storage_rescues_and_runs_nothing(place):
    """With --storage a lost instance is scheduled again, and the output says that somebody else must run it."""
    place.lose("s")
    assert "its worker gone was lost" in " ".join(place.run("show", "s").stdout.split())
    document = place.json("sweep")
    assert (document["recovered"], document["failed"], document["dispatched"]) == (1, 0, 0)
    assert status(place, "s", "t_lost#0") == "scheduled"
    assert place.json("sweep")["recovered"] == 0


def test_a_sweep_without_tasks_delays_nobody(place):
    """With --storage nothing is marked as handed over: a worker that comes at once finds all of it due."""
    place.run("configure", "s", "-", stdin=RULES)
    place.run("fire", "s", "x")
    with place.open(runner=None) as app:
        before = app.session("s").storage["t_one#0"].stored
        text = place.run("sweep").stdout
        assert app.session("s").storage["t_one#0"].stored == before
    assert "This command ran no task" in text
    assert "1 ready" in text


@pytest.mark.parametrize("app", ["inline", "threads"])
def test_a_sweep_with_the_application_runs_what_is_due(place, app):
    """With --app everything that is ready runs in this process, cascades too, until nothing is due."""
    for uid in "abc":
        place.run("configure", uid, "-", stdin=RULES)
        place.run("fire", uid, "x")
    document = place.json("sweep", "--app", f"survey_app:{app}", storage=False)
    assert (document["ready"], document["running"]) == (0, 0)
    assert {status(place, uid, name) for uid in "abc" for name in ("t_one#0", "t_two#0")} == {"finished"}


def test_a_sweep_with_an_application_that_only_fires_says_so(place):
    """An application with runner=None sweeps like a storage alone."""
    place.run("configure", "s", "-", stdin=RULES)
    place.run("fire", "s", "x")
    text = place.run("sweep", "--app", "survey_app:firing_only", storage=False).stdout
    assert "This command ran no task" in text


# -- work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_runs_until_it_is_told_to_stop(place, number):
    """It runs what is due, ends at the signal with exit code 0, and leaves nothing claimed."""
    place.run("configure", "s", "-", stdin=RULES)
    place.run("fire", "s", "x")
    worker = place.start("work", "--app", "survey_app:threads")
    with place.open(runner=None) as app:
        assert app.join(30)
    worker.send_signal(number)
    out, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err
    assert out == ""
    assert f"Stopped by {number.name}." in err
    assert status(place, "s", "t_two#0") == "finished"


@pytest.mark.parametrize("configured", [False, True])
def test_a_worker_prints_what_fails(place, configured):
    """By default as a line with the level and a traceback; otherwise as the application configures its logging."""
    if configured:
        own = "import logging; logging.basicConfig(format='own: %(levelname)s %(message)s')\n"
        (place.folder / "survey_app.py").write_text(own + (place.folder / "survey_app.py").read_text())
    place.run("configure", "s", "-", stdin=json.dumps({"t_bad": {"after": ["x"], "run": "survey.bad"}}))
    place.run("fire", "s", "x")
    worker = place.start("work", "--app", "survey_app:threads")
    with place.open(runner=None) as app:
        assert app.join(30)
    worker.terminate()
    err = worker.communicate(timeout=30)[1]
    (line,) = (line for line in err.splitlines() if "ERROR" in line)
    assert line.startswith("own: ") == configured
    assert line.count("ValueError: spam") == 1
    assert err.count("Traceback") == 1


def test_a_worker_lets_go_of_what_does_not_end(place):
    """After --stop-within what still runs is scheduled again at once, for another process."""
    place.run("configure", "s", "-", stdin=HANGS)
    place.run("fire", "s", "x")
    worker = place.start("work", "--app", "survey_app:threads", "--stop-within", "0.1", "--json")
    assert worker.stderr.readline() == "begun\n"
    worker.terminate()
    out, err = worker.communicate(timeout=30)
    assert (worker.returncode, err) == (0, "")
    assert json.loads(out) == {"signal": "SIGTERM"}
    assert status(place, "s", "t_hang#0") == "scheduled"


def until_end(worker, number):
    """What a worker prints until its end, after the second of two equal signals.

    Those that are pending together arrive as one. Then it is sent again.
    """
    try:
        return worker.communicate(timeout=3)[1]
    except subprocess.TimeoutExpired:
        worker.send_signal(number)
        return worker.communicate(timeout=30)[1]


def test_a_second_signal_does_not_wait(place):
    """While a worker waits for what runs, another signal makes it let go at once."""
    place.run("configure", "s", "-", stdin=HANGS)
    place.run("fire", "s", "x")
    worker = place.start("work", "--app", "survey_app:threads", "--stop-within", "600")
    while worker.stderr.readline() != "begun\n":
        pass
    worker.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=0.5)
    worker.terminate()
    until_end(worker, signal.SIGTERM)
    assert worker.returncode == 0
    assert status(place, "s", "t_hang#0") == "scheduled"


@pytest.mark.parametrize("pause", [0, 0.001, 0.02, 0.1])
@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_signals_close_together_let_go_without_a_traceback(place, numbers, pause):
    """A Ctrl-C that a process manager passes on, too: the running task is released, and the end is orderly."""
    place.run("configure", "s", "-", stdin=HANGS)
    place.run("fire", "s", "x")
    worker = place.start("work", "--app", "survey_app:threads", "--stop-within", "600")
    while worker.stderr.readline() != "begun\n":
        pass
    for number in numbers:
        worker.send_signal(number)
        time.sleep(pause)
    err = until_end(worker, numbers[0]) if len(set(numbers)) == 1 else worker.communicate(timeout=30)[1]
    assert worker.returncode == 0
    assert err.rstrip() in {
        f"Stopped by {number.name}." for number in numbers
    }  # pending signals have no order
    assert status(place, "s", "t_hang#0") == "scheduled"


@pytest.mark.parametrize("count", [2, 3, 20])
def test_many_signals_end_an_idle_worker_in_order(place, count):
    """Signals that keep coming, up to the very end of the process, leave no traceback."""
    worker = place.start("work", "--app", "survey_app:threads")
    assert worker.stderr.readline().startswith("Working.")
    for _ in range(count):
        worker.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, err = worker.communicate(timeout=30)
    assert (worker.returncode, err) == (0, "Stopped by SIGINT.\n")


def test_a_third_signal_does_not_wait_for_a_storage(place):
    """While a locked storage keeps the release waiting, another signal ends the worker; its lease runs out."""
    place.run("configure", "s", "-", stdin=HANGS)
    place.run("fire", "s", "x")
    worker = place.start("work", "--app", "survey_app:threads", "--stop-within", "600")
    while worker.stderr.readline() != "begun\n":
        pass
    with sqlite3.connect(place.folder / "survey.db", isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        worker.send_signal(signal.SIGTERM)
        for _ in range(100):  # equal signals that are pending together arrive as one
            time.sleep(0.2)
            if worker.poll() is not None:
                break
            worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
        connection.execute("ROLLBACK")
    assert worker.returncode == 0
    assert status(place, "s", "t_hang#0") == "running"


def test_a_task_that_runs_inline_is_let_go_too(place):
    """A worker whose runner is inline looks for signals while a task runs, and releases it."""
    place.run("configure", "s", "-", stdin=HANGS)
    place.run("fire", "s", "x")
    worker = place.start("work", "--app", "survey_app:inline", "--stop-within", "0.1")
    while worker.stderr.readline() != "begun\n":
        pass
    worker.terminate()
    _, err = worker.communicate(timeout=30)
    assert (worker.returncode, err) == (0, "Stopped by SIGTERM.\n")
    assert status(place, "s", "t_hang#0") == "scheduled"


def test_a_worker_needs_tasks_and_a_runner(place):
    """With --storage, or an application that only fires, `work` is wrong use."""
    place.open().close()
    assert "--app" in place.run("work", code=2).stderr
    assert "runner=None" in place.run("work", "--app", "survey_app:firing_only", storage=False, code=2).stderr


# -- demo -----------------------------------------------------------------------------------------------


def test_the_demo_ends_with_its_counts(place):
    """The last line is a document with the counts, and a second run, which finds all done, prints the same."""
    options = ["demo", "--respondents", "5", "--folder", "here", "--json"]
    first, second = (json.loads(place.run(*options, storage=False).stdout) for _ in range(2))
    assert first["sessions"] == 5
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_the_demo_refuses_another_seed_in_the_same_folder(place):
    """Its files hold the survey of one seed; another one is wrong use, in one line."""
    options = ["demo", "--respondents", "2", "--folder", "here"]
    place.run(*options, storage=False)
    result = place.run(*options, "--seed", "7", storage=False, code=2)
    assert "seed" in result.stderr
    assert "Traceback" not in result.stderr
