"""Forks, interrupts, threads that end, greenlets, `atexit` and `close`, at random, on every storage.

Each storm is a process of its own, which fires under keys and writes down what was confirmed, what an exception
said was stored, and what it said was not. Afterwards a look from outside compares: whatever was confirmed is
stored, once, and what was said of the interrupted is true. A finaliser (`__del__`) that is interrupted swallows the
exception, as Python has it, so a strike is repeated until it is felt. Nothing is left: no lock, no connection in use, no
descriptor, and the process ends by itself.

`make soak` runs the long form; TRIGGERS_STORM_EVENTS says how many interrupts it has.
"""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.storages.scripts import run
from triggers import Triggers
from triggers.plugins import storage_from_url

pytestmark = pytest.mark.filterwarnings("ignore:SQLite .* can corrupt:RuntimeWarning")

#: Interrupts, and forks, of the short and of the long form.
SHORT = (60, 6)
LONG = (int(os.environ.get("TRIGGERS_STORM_EVENTS", "5000")), 200)

SQLITE = ("pysqlite3", "sqlite3")
STORAGES = (*SQLITE, "postgresql", "valkey")


@pytest.fixture(params=STORAGES)
def url(request, tmp_path):
    if request.param in SQLITE:
        return f"sqlite:///{tmp_path}/a.db?synchronous=normal&driver={request.param}"
    address = request.getfixturevalue({"postgresql": "postgres_url", "valkey": "valkey_url"}[request.param])
    storage_from_url(address).close()
    return address


STORM = """
import json, random, signal

events, seed = int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(seed)
triggers = Triggers(url, runner=None)
manager = triggers.session("s")
manager.update_configuration({"t_each": {"andEvery": "a", "run": "nothing"}})
storage = triggers.storage
reader = storage.reader
from triggers.core.status import Status
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import Steps, attempt_at
steps = Steps(storage, "s")
sure, stored, lost, unsure = [], [], [], []
number = 0

class Interrupt(BaseException):
    pass

armed = False

def strike(_, frame):
    if armed and frame.f_code.co_name != "<module>":
        raise Interrupt

signal.signal(signal.SIGALRM, strike)

def fire():
    global number
    number += 1
    key = f"{os.getpid()}-{number}"
    unsure.append(key)
    manager.fire("a", key=key)
    sure.append(key)

def work():
    for one in reader.instances("s", statuses=[Status.SCHEDULED], limit=20):
        attempt = steps.claim(one.name).claimed
        if attempt is not None:
            attempt = attempt_at(attempt)
            steps.keep_logs(attempt, batch(entry("x" * 500, seq=1), entry(seq=2)))
            steps.renew(attempt)
            steps.finish(attempt, {"done": True})

acts = [fire, fire, fire, lambda: reader.session("s"), lambda: reader.firings("s", after=max(0, number - 5)),
        lambda: reader.logs("s"), reader.backlog, lambda: triggers.join(0.001), work, work,
        lambda: triggers.sweep(), storage.close]
struck = 0
while struck < events:
    act = dice.choice(acts)
    span = dice.choice((0.0001, 0.0005, 0.002, 0.01)) * dice.random() + 1e-6
    try:
        armed = True
        # Again and again: what a finaliser (`__del__`) is interrupted by, Python swallows.
        signal.setitimer(signal.ITIMER_REAL, span, 0.02)
        while True:
            act()
    except (Interrupt, ValueError) as error:
        if "Interrupt" not in repr(error):
            raise
        armed = False
        struck += 1
        notes = " ".join(getattr(error, "__notes__", ()))
        if "unknown" not in notes and act is fire and unsure[-1:] != sure[-1:]:
            if "committed before" in notes or "was stored" in notes:
                stored.append(unsure[-1])
            elif "rolled back" in notes or "not stored" in notes:
                lost.append(unsure[-1])
        if dice.random() < 0.5:
            fire()  # in the handler, whose traceback keeps everything alive
    if not struck % 10:
        fire()
signal.setitimer(signal.ITIMER_REAL, 0)
pool = getattr(getattr(storage, "_file", None), "_pool", None) or getattr(getattr(storage, "_pool", None), "_checkouts", None)
users = len(pool._held) if pool else 0
manager.fire("a", key="last")
sure.append("last")
triggers.close()
print(json.dumps({"sure": sure, "stored": stored, "lost": lost, "struck": struck, "users": users,
                  "files": descriptors("a.db") + descriptors("socket:")}))
"""

FORKS = """
import atexit, json, random, threading
forks, seed = int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(seed)
triggers = Triggers(url, runner=None)
ending = threading.Event()
counts = {"parent": 0}
triggers.session("s").fire("a", key="first")
lock = threading.Lock()
sure = ["first"]

def fire(name, n):
    manager = triggers.session("s")
    for number in range(n):
        manager.fire("a", key=f"{name}-{number}")
        sure.append(f"{name}-{number}")

def busy(name):
    number = 0
    while not ending.is_set():
        fire(f"{name}-{number}", 1)
        number += 1
        time.sleep(0.002)

def spawned(number):
    threading.Thread(target=fire, args=(f"thread-{number}", 2)).start()

def late(number):
    sure.clear()
    fire(f"late-{number}", 3)
    os.write(writing, (json.dumps(sure) + chr(10)).encode())

threads = [threading.Thread(target=busy, args=(f"busy-{n}",)) for n in range(2)]
[thread.start() for thread in threads]
codes, children = [], []
reading, writing = os.pipe()
for number in range(forks):
    time.sleep(dice.random() * 0.01)
    kind = dice.choice(("close", "exit", "atexit", "daemon", "grandchild"))
    pid = os.fork()
    if pid == 0:
        sure.clear()
        ending.set()
        try:
            fire(f"child-{number}", 5)
            if kind == "close":
                triggers.close()
            if kind == "daemon":
                os.setsid()
            if kind == "grandchild":
                inner = os.fork()
                if inner == 0:
                    sure.clear()
                    fire(f"grandchild-{number}", 3)
                    triggers.close()
                    os.write(writing, (json.dumps(sure) + chr(10)).encode())
                    os._exit(0)
                assert end_of(inner) == 0
            if kind == "atexit":
                atexit.register(late, number)
            os.write(writing, (json.dumps(sure) + chr(10)).encode())
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        sys.exit(0) if kind in ("exit", "atexit") else os._exit(0)
    if dice.random() < 0.3:
        triggers.close()
    if dice.random() < 0.5:
        fire(f"parent-{number}", 2)
    if dice.random() < 0.3:
        spawned(number)
    children.append(pid)
    if number % 8 == 7:
        codes += [end_of(child) for child in children]
        children.clear()
codes += [end_of(child) for child in children]
ending.set()
[thread.join() for thread in threading.enumerate() if thread is not threading.main_thread()]
os.close(writing)
with os.fdopen(reading) as told:
    for line in told:
        sure += json.loads(line)
triggers.close()
print(json.dumps({"sure": sure, "codes": sorted(set(codes)), "files": descriptors("a.db") + descriptors("socket:")}))
"""


def told(script, url, *given):
    said, code = run(script, url, *map(str, given), seconds=3600)
    assert code == 0, said[-3000:]
    return json.loads(next(line for line in said.splitlines() if line.startswith("{")))


def keys(url):
    """The keys of all firings, as somebody reads them who comes later."""
    triggers = Triggers(url, runner=None)
    triggers.session("s").fire("a", key="from outside")
    found, after = [], 0
    while page := triggers.storage.reader.firings("s", after=after, limit=1000):
        found += [firing.key for firing in page if firing.key]
        after = page[-1].number
    triggers.close()
    return found


def storm(url, events, seed, capsys):
    result = told(STORM, url, events, seed)
    there = keys(url)
    assert len(there) == len(set(there))
    assert set(result["sure"]) <= set(there), "what was confirmed is stored"
    assert set(result["stored"]) <= set(there), "what was said to be stored is"
    assert not set(result["lost"]) & set(there), "what was said not to be stored is not"
    assert (result["users"], result["files"]) == (0, 0)
    counts = {name: len(result[name]) for name in ("sure", "stored", "lost")}
    with capsys.disabled():
        sys.stdout.write(
            f"{json.dumps({'storage': url.partition(':')[0], 'struck': result['struck'], **counts})}\n"
        )


def forks(url, number, seed, capsys):
    result = told(FORKS, url, number, seed)
    there = keys(url)
    assert set(result["sure"]) <= set(there), "what was confirmed is stored"
    assert (result["codes"], result["files"]) == ([0], 0)
    with capsys.disabled():
        sys.stdout.write(
            f"{json.dumps({'storage': url.partition(':')[0], 'forks': number, 'confirmed': len(result['sure'])})}\n"
        )


def test_interrupts_leave_nothing_behind(url, capsys):
    """The short form of the storm of interrupts."""
    storm(url, SHORT[0], 1, capsys)


def test_forks_lose_nothing(url, capsys):
    """The short form of the storm of forks."""
    forks(url, SHORT[1], 1, capsys)


@pytest.mark.slow
def test_thousands_of_interrupts_leave_nothing_behind(url, capsys):
    """Thousands of interrupts in firing, reading, joining, claiming and sweeping."""
    storm(url, LONG[0], 2, capsys)


@pytest.mark.slow
def test_hundreds_of_forks_lose_nothing(url, capsys):
    """Two hundred forks at random moments, while threads of the parent fire, too."""
    forks(url, LONG[1], 2, capsys)
