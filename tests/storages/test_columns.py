"""The description of the columns: it agrees with the classes, and adding a column takes a line in it and a migration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import triggers
from triggers.core.columns import ENTRY, INSTANCE, RECORD, codecs_of, names_of
from triggers.core.exchange import Record
from triggers.core.records import LogEntry
from triggers.core.state import Firing, Instance
from triggers.core.status import Status
from triggers.plugins import storage_from_url
from triggers.storages.redis import rows as redis_rows
from triggers.testing.conformance.steps import Steps

# -- what is described --------------------------------------------------------------------------------------


def test_every_field_of_an_instance_is_a_column_in_the_order_of_the_class():
    """Readers make instances of columns by position."""
    assert list(names_of(INSTANCE)) == [each.name for each in fields(Instance)]


def test_every_field_of_a_log_entry_is_a_column_in_the_order_of_the_class():
    """Readers make entries of columns by position."""
    assert list(names_of(ENTRY)) == [each.name for each in fields(LogEntry)]


def test_every_codec_brings_back_what_it_stored():
    """The empty value and another one, through the text of a column and through plain JSON."""
    values = {
        "status": Status.FAILED,
        "taken": {"go": 3},
        "vetoes": ("stop", "halt"),
        "log_counts": {30: 2},
        "log_chosen": (4, 9),
    }
    columns = [(column.name, column.codec) for column in INSTANCE if column.codec]
    assert [name for name, _ in columns] == list(values)
    for name, codec in columns:
        assert codec.decode(codec.encode(values[name])) == values[name]
        assert codec.restore(json.loads(json.dumps(values[name]))) == values[name]
        if codec.blank:
            assert codec.decode(codec.blank) == codec.empty()


# -- what is stored stays as it is --------------------------------------------------------------------------

RUNNING = Instance(
    "t_ship",
    2,
    Status.RUNNING,
    11,
    12,
    ref=7,
    fence=3,
    attempt=2,
    crashes=1,
    crash_budget=5,
    given_back=4,
    run_at=13,
    dispatch_after=14,
    handovers=6,
    lease_until=15,
    owner="w",
    parent=1,
    root=0,
    depth=8,
    retries=9,
    cascade_depth=10,
    taken={"go": 5, "ü": 6},
    vetoes=("stop",),
    kwargs='{"n":1}',
    result=16,
    error='{"type":"E"}',
    metadata='{"m":1}',
    history="11 made\n",
    log_count=17,
    log_level=40,
    log_unresolved=30,
    log_counts={30: 2, 40: 1},
    log_dropped=18,
    log_resolved=19,
    log_chosen=(21, 23),
    log_audit='[{"by":"me"}]',
)
STATE = b"4 running 3 15 13 14 6 30 19 21,23 5,6"
REST = (
    '[11,12,7,2,1,5,4,"w",1,0,8,9,10,{"go":5,"ü":6},["stop"],"{\\"n\\":1}",16,"{\\"type\\":\\"E\\"}",'
    '"{\\"m\\":1}","11 made\\n",17,40,{"30":2,"40":1},18,"[{\\"by\\":\\"me\\"}]"]'
).encode()
PLACE = b"t_ship\x00000000000000000002"

SAID = LogEntry(
    1, 5, 40, "shop", "Said 1.", "Said %s.", {"n": 1}, None, "/a.py", 3, "f", ("context.x",), late=True
)
PAYLOAD = (
    b'[9,3,2,1,5,40,"shop","Said 1.","Said %s.","{\\"n\\":1}",null,"/a.py",3,"f","[\\"context.x\\"]",'
    b'"FINGERPRINT",true,true]'
)


def test_redis_keeps_instances_as_the_first_version_did():
    """Bytes that the first version has written are what is written, and are read."""
    assert redis_rows.state_of(RUNNING, 4) == STATE
    assert redis_rows.rest_of(RUNNING) == REST
    assert redis_rows.instance_from(PLACE, STATE, REST) == RUNNING


def test_redis_keeps_firings_and_records_as_the_first_version_did():
    """Bytes that the first version has written are what is written, and are read."""
    firing = Firing(3, "go", '{"n":1}', 8, 1, "t_ship#0", "k", "print")
    text = b'["go",8,1,"t_ship#0","k","print"]'
    assert redis_rows.firing_of(firing) == text
    assert redis_rows.firing_from(3, text, b'{"n":1}') == firing
    record = Record(RUNNING, 9, 3, 2, SAID)
    payload, kind = redis_rows.record_of(record)
    assert payload == PAYLOAD.replace(b"FINGERPRINT", record.fingerprint.encode())
    assert kind == b"9 40 1 " + record.fingerprint.encode()
    read = redis_rows.record_from(b"o%016d\0%b\0%b" % (1, PLACE, kind), payload, 0)
    assert (read.name, read.number, read.fence, read.attempt, read.entry) == ("t_ship#2", 9, 3, 2, SAID)


def test_redis_reads_an_instance_that_was_stored_before_its_last_columns_were_added():
    """They have the defaults of the class."""
    older = json.dumps(json.loads(REST)[:-2]).encode()
    read = redis_rows.instance_from(PLACE, STATE, older)
    assert (read.log_counts, read.log_dropped, read.log_audit) == ({30: 2, 40: 1}, 0, "[]")


def test_values_that_instances_are_made_of_are_not_shared():
    """Every instance that is read where a column is missing has a mapping of its own."""
    older = json.dumps(json.loads(REST)[:13]).encode()
    first, second = (redis_rows.instance_from(PLACE, STATE, older) for _ in range(2))
    first.taken["go"] = 1
    assert second.taken == {}
    assert all(codec.empty() is not codec.empty() for _, codec in codecs_of(RECORD) if codec.empty is dict)


# -- one column more ----------------------------------------------------------------------------------------

FIELD = '    log_audit: str = "[]"\n'
LINE = '    Column("log_audit", _TRANSITIONED),\n'
MIGRATIONS = {
    "sqlite": "ALTER TABLE instances ADD COLUMN remark TEXT NOT NULL DEFAULT 'none';\n",
    "postgres": "ALTER TABLE {schema}.instances ADD COLUMN remark text NOT NULL DEFAULT 'none';\n",
}

#: Made by the library as it is; the library with one column more changes what is made of it.
RULES = {name: {"after": ["first", "go"], "run": "shop.Task"} for name in ("t_a", "t_b")}

SCRIPT = """
import json, sys
from triggers.core.exchange import Changes, Decision, Guard, Need
from triggers.core.state import Counter, Instance
from triggers.core.status import Status
from triggers.plugins import storage_from_url
from triggers.testing.conformance.steps import Steps

storage = storage_from_url(sys.argv[1])
if storage.reader.session("session") is None:
    Steps(storage).configure(json.loads(sys.argv[2]))
    Steps(storage).fire("first")
said = {"before": storage.reader.instance("session", "t_a", 0).remark}


def created(session):
    found = yield Need(tasks=frozenset({"t_a"}))
    number = found.counters["t_a"].created
    made = Instance("t_a", number, Status.UNSTARTED, session.now, session.now, root=number, remark="created")
    counter = Counter(number + 1, number + 1)
    changes = Changes(session, created=[made], lacks=[(made, frozenset({"go"}))], counters={"t_a": counter})
    return changes


def triggered(session):
    found = yield Need(waiting=("go",))
    said["in a slice"] = sorted((each.name, each.remark) for each in found.instances)
    for each in found.instances:
        each.remark += ", triggered"
        each.status = Status.SCHEDULED
    return Changes(session, triggered=found.instances, gained=[(each, frozenset({"go"})) for each in found.instances])


def transitioned(session):
    found = yield Need(instances=(("t_a", 1),))
    (each,) = found.instances
    guard = Guard(each.status, each.fence)
    each.remark += ", transitioned"
    each.fence += 1
    return Changes(session, transitioned=[(each, guard)])


for decide in (created, triggered, transitioned):
    storage.commit("session", Decision(decide.__name__, decide))
    each = storage.reader.instance("session", "t_a", 1)
    said[decide.__name__] = each.remark
said["page"] = [(each.name, each.remark) for each in storage.reader.instances("session")]
storage.close()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A copy of the library with one column more: a field, a line in the description, and its migrations."""
    folder = tmp_path_factory.mktemp("library")
    package = folder / "triggers"
    shutil.copytree(Path(triggers.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    _insert(package / "core/state.py", FIELD, '    remark: str = "none"\n')
    _insert(package / "core/columns.py", LINE, '    Column("remark", _ALWAYS),\n')
    for dialect, text in MIGRATIONS.items():
        (package / f"storages/{dialect}/migrations/9999_remark.sql").write_text(text, "utf-8")
    return folder


def _insert(path, after, line):
    text = path.read_text("utf-8")
    assert text.count(after) == 1
    path.write_text(text.replace(after, after + line), "utf-8")


def changed_by(library, url):
    """What the library with one column more says of a storage, in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, url, json.dumps(RULES)]
    environment = {**os.environ, "PYTHONPATH": str(library)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


EXPECTED = {
    "before": "none",
    "created": "created",
    "in a slice": [["t_a#0", "none"], ["t_a#1", "created"], ["t_b#0", "none"]],
    "triggered": "created, triggered",
    "transitioned": "created, triggered, transitioned",
    "page": [
        ["t_a#0", "none, triggered"],
        ["t_a#1", "created, triggered, transitioned"],
        ["t_b#0", "none, triggered"],
    ],
}


def test_memory_has_one_column_more(library):
    """Written by every kind of change, and read back, alone, in a page and in a slice."""
    assert changed_by(library, "memory://") == EXPECTED


def with_older_instances(url):
    """The URL, under which the library as it is has made instances."""
    storage = storage_from_url(url)
    Steps(storage).configure(RULES)
    Steps(storage).fire("first")
    storage.close()
    return url


def test_sqlite_has_one_column_more(library, tmp_path):
    """The same, in a file that the library without the column has made."""
    assert changed_by(library, with_older_instances(f"sqlite:///{tmp_path}/t.db")) == EXPECTED


def test_postgres_has_one_column_more(library, postgres_url):
    """The same, in a schema that the library without the column has made."""
    assert changed_by(library, with_older_instances(postgres_url)) == EXPECTED


@pytest.mark.parametrize("server", ["redis_url", "valkey_url"])
def test_redis_has_one_column_more(library, server, request):
    """The same, with instances that the library without the column has stored."""
    assert changed_by(library, with_older_instances(request.getfixturevalue(server))) == EXPECTED
