"""PostgreSQL among processes: forks, many that fire into one session, servers that fall and stand up again."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.storages.postgres_sandbox import connect, forked
from triggers.exceptions import StorageError
from triggers.storages.postgres import PostgresStorage
from triggers.testing.conformance.fixtures import NAMES, at_once, batch, entry
from triggers.testing.conformance.steps import SECOND, Steps
from triggers.testing.servers import PostgresServer

PAGES = {"t_page": {"andEvery": "page", "run": "page"}}


@pytest.fixture
def own_server():
    """A server that may be stopped and paused."""
    if not PostgresServer.installations():
        pytest.skip("no PostgreSQL on this machine")
    with PostgresServer(private=True) as server:
        yield server


# -- one session ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_sixteen_processes_fire_into_one_session(postgres_url):
    """Every firing is recorded once, in the order of its process, with numbers without gaps, and one instance each."""
    times = 25
    storage = PostgresStorage(postgres_url)
    steps = Steps(storage, "hot")
    steps.configure(PAGES)

    def fire(who):
        return [steps.fire("page", {"who": who, "n": n}).fired[0].number for n in range(times)]

    told = [json.loads(said) for said in forked(*(partial(fire, who) for who in range(16)))]
    assert all(numbers == sorted(numbers) and len(numbers) == times for numbers in told)
    assert sorted(number for numbers in told for number in numbers) == list(range(1, 16 * times + 1))
    assert [firing.number for firing in steps.firings()] == list(range(1, 16 * times + 1))
    instances = steps.instances()
    assert [instance.number for instance in instances] == list(range(16 * times))
    seen = {(kwargs["page"]["who"], kwargs["page"]["n"]) for kwargs in steps.kwargs_of(instances)}
    assert len(seen) == 16 * times
    storage.close()


def test_a_session_is_made_once_however_many_fire_first(postgres_url):
    """Eight handles fire into a session that is not there: one session, eight numbers, again and again."""
    storages = [PostgresStorage(postgres_url) for _ in range(8)]
    for turn in range(20):
        numbers = at_once(
            [lambda s=s, uid=f"new {turn}": Steps(s, uid).fire("a").fired[0].number for s in storages]
        )
        assert sorted(numbers) == list(range(1, 9))
    assert len(storages[0].sessions()) == 20
    for storage in storages:
        storage.close()


def test_a_follower_of_a_log_misses_nothing(postgres_url):
    """Records of one session, said by many at once, become visible in the order of their cursors."""
    writers = [PostgresStorage(postgres_url) for _ in range(6)]
    reader = PostgresStorage(postgres_url)
    steps = Steps(writers[0], "hot")
    steps.configure(PAGES)
    attempts = []
    for n in range(6):
        steps.fire("page")
        attempts.append(steps.start(f"t_page#{n}"))
    done = threading.Event()
    followed = []

    def follow():
        while True:
            last = done.is_set()
            page = reader.logs("hot", after=followed[-1].cursor if followed else 0, limit=10)
            followed.extend(page)
            if last and not page:
                return

    def say(storage, attempt):
        for n in range(25):
            Steps(storage, "hot").keep_logs(attempt, batch(entry(str(n)), entry(f"{n}b")))

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        at_once([lambda s=s, a=a: say(s, a) for s, a in zip(writers, attempts, strict=True)])
        done.set()
        following.result(timeout=60)
    assert len(followed) == 300
    assert len({(record.instance, record.number) for record in followed}) == 300
    for storage in (*writers, reader):
        storage.close()


# -- forks ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_uses_connections_of_its_own(postgres_url):
    """Parent and child go on with the same storage; the child's end, and its close, leave the parent's alone."""
    storage = PostgresStorage(postgres_url)
    assert Steps(storage).fire("page").fired[0].number == 1
    (wire,) = storage._pool._idle
    (pid,) = wire.ask("SELECT pg_backend_pid()")[0][0]

    def child():
        number = Steps(storage).fire("page").fired[0].number
        (own,) = storage._pool._idle
        storage.close()
        return number, own.ask("SELECT 1") if own.is_idle else "closed", own is wire

    assert forked(child) == ["(2, 'closed', False)"]
    assert storage._pool._idle == [wire]
    assert wire.ask("SELECT pg_backend_pid()") == [[(pid,)]]
    assert Steps(storage).fire("page").fired[0].number == 3
    storage.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_may_fork_while_threads_use_the_storage(postgres_url):
    """Whatever lock or connection another thread held, the child is not kept waiting."""
    storage = PostgresStorage(f"{postgres_url}&pool_size=2")
    done = threading.Event()

    def busy():
        while not done.is_set():
            storage.now()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(busy)
        numbers = [forked(lambda: Steps(storage).fire("page").fired[0].number)[0] for _ in range(10)]
        done.set()
    assert numbers == [str(number) for number in range(1, 11)]
    storage.close()


# -- servers that fail ---------------------------------------------------------------------------------------


def test_a_server_that_falls_and_stands_up_again_loses_nothing(own_server):
    """Four threads fire while it is stopped at once, three times: what returned is stored, once, without gaps."""
    storage = PostgresStorage(own_server.url)
    Steps(storage, "hot").configure(PAGES)
    done, some = threading.Event(), threading.Event()

    def fire(who):
        told = []
        while not done.is_set():
            told.append(Steps(storage, "hot").fire("page", {"who": who, "n": len(told)}).fired[0])
            if len(told) % 10 == 0:
                some.set()
        return told

    with ThreadPoolExecutor(4) as pool:
        firing = [pool.submit(fire, who) for who in range(4)]
        for _ in range(3):
            some.wait(timeout=60)
            own_server.stop(immediate=True)
            some.clear()
            own_server.start()
        some.wait(timeout=60)
        done.set()
        told = [each for future in firing for each in future.result(timeout=60)]
    stored = Steps(storage, "hot").firings()
    assert [each.number for each in stored] == list(range(1, len(stored) + 1))
    assert sorted(told) == stored
    storage.close()


def test_a_server_that_does_not_answer_is_an_error_after_a_while(own_server):
    """One that is paused keeps its connections open, and says nothing: the caller is not kept for ever."""
    storage = PostgresStorage(f"{own_server.url}&timeout=1.5")
    steps = Steps(storage)
    steps.fire("page")
    own_server.pause()
    with pytest.raises(StorageError, match=r"could not be used for 1.5 s .*; nothing was changed"):
        steps.fire("page")
    own_server.resume()
    assert steps.fire("page").fired[0].number == 2
    storage.close()


# -- PgBouncer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("through", "option", "expected"),
    [
        ("postgres_url", "", (False, True)),
        ("pgbouncer_url", "", (True, False)),
        ("postgres_url", "&prepare=off", (False, False)),
    ],
)
def test_a_pooler_is_found_out(request, through, option, expected):
    """Behind PgBouncer nothing is prepared; the URL has the last word."""
    storage = PostgresStorage(request.getfixturevalue(through) + option)
    (wire,) = storage._pool._idle
    assert (wire.is_pooled, wire._prepares) == expected
    storage.close()


def test_behind_a_pooler_nothing_is_left_behind(pgbouncer_url, pgbouncer):
    """Another client of the same server connections finds no setting, lock or prepared statement of ours."""
    storage = PostgresStorage(f"{pgbouncer_url}&pool_size=4")
    steps = Steps(storage)
    steps.configure(PAGES)
    at_once([lambda: steps.fire("page")] * 4)
    steps.keep_logs(steps.start("t_page#0"), batch(entry()))
    storage.due(10, grace=30 * SECOND)
    asked = (
        "SELECT current_setting('lock_timeout'), current_setting('enable_seqscan'), current_setting('jit'),"
        " current_setting('search_path'), (SELECT count(*) FROM pg_prepared_statements),"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
    )
    with connect(pgbouncer.url, prepare_threshold=None) as other:
        for _ in range(10):
            found = other.execute(asked).fetchone()
            assert found[0] == "0"
            assert (found[1], found[3], found[4], found[5]) == ("on", '"$user", public', 0, 0)
    storage.close()


# -- texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ufdd0\ufdd1", "\ufdd0\0\ufdd1\0", "\0\0\ufdd1", *NAMES[:8]])
def test_records_may_say_anything(postgres_url, text):
    """PostgreSQL keeps no NUL, we do: as part of a text, and to be searched for, exactly."""
    storage = PostgresStorage(postgres_url)
    steps = Steps(storage)
    steps.configure(PAGES)
    steps.fire("page")
    attempt = steps.start("t_page#0")
    said = entry(f"<{text}>", template=text)
    steps.keep_logs(attempt, batch(said, entry("nothing")))
    assert storage.logs("session")[0].entry == said
    assert [record.number for record in storage.logs("session", text=f"<{text}>")] == [1]
    assert [record.number for record in storage.logs("session", text=text)] == [1]
    for part in ("\ufdd0", "\ufdd1", "\0"):
        assert len(storage.logs("session", text=part)) == (part in text)
    storage.close()


@pytest.mark.parametrize("uid", ["a\0b", "\ud800"])
def test_what_cannot_be_kept_is_refused_before_anything_is_sent(postgres_url, uid):
    """A NUL or half a character in a name that came past every check changes nothing, and the connection goes on."""
    storage = PostgresStorage(postgres_url)
    for refused in (lambda: storage.session(uid), lambda: Steps(storage, uid).fire("page")):
        with pytest.raises(StorageError, match=r"which PostgreSQL cannot store; nothing was changed"):
            refused()
    assert Steps(storage).fire("page").fired[0].number == 1
    storage.close()
