"""Commits on PostgreSQL: few round trips, never made twice, whatever happens to the connection."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.storages.postgres_sandbox import PostgresPlace, connect, in_schema
from triggers.core import decisions
from triggers.core.decisions.needs import need_for
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.records import LogBatch
from triggers.core.state import Firing
from triggers.core.terms import AttemptReport, Finalizing, Policy
from triggers.core.timers import FIRES, Timer
from triggers.core.values import decode
from triggers.exceptions import StorageBusyError, StorageError
from triggers.storages.postgres import PostgresStorage
from triggers.testing.conformance import StorageConformance
from triggers.testing.conformance.fixtures import SURVEY, at_once, batch, entry
from triggers.testing.conformance.steps import SECOND, Steps
from triggers.testing.faults import Faults, FaultyStorage, InjectedCrash
from triggers.testing.servers.proxy import Proxy

PAGES = {"t_page": {"andEvery": "page", "run": "page"}}


@pytest.fixture
def storage(postgres_url):
    storage = PostgresStorage(postgres_url)
    yield storage
    storage.close()


@pytest.fixture
def run_sql(postgres_url):
    """Runs SQL on a connection of its own, with `{schema}` filled in."""
    with connect(postgres_url) as connection:
        yield lambda text, *given: connection.execute(in_schema(postgres_url, text), given)


class Network:
    """A storage behind a network that fails on command."""

    def __init__(self, url, options):
        target, _, schema = url.partition("&schema=")
        self.proxy = Proxy(target)
        self.storage = PostgresStorage(f"{self.proxy.url}?schema={schema}&{options}")

    def cut_at_commit(self, **where):
        """Cut the connection when the word that commits passes."""
        return self.proxy.cut_after(b"COMMIT\0", **where)


@pytest.fixture
def network(postgres_url, postgres_server):
    if not postgres_server.private:
        pytest.skip("needs a server that is reached over a Unix socket")
    network = Network(postgres_url, "prepare=off&timeout=20")
    yield network
    network.storage.close()
    network.proxy.close()


# -- round trips -------------------------------------------------------------------------------------------


class Trace:
    """What libpq itself notes down of a storage's connection."""

    def __init__(self, storage, folder):
        storage.now()
        (self._wire,) = storage._pool._idle
        self._path = Path(folder) / "trace"
        self._file = self._path.open("w")
        self._wire._pg.trace(self._file.fileno())

    def round_trips(self):
        """How often the direction has turned from the client to the server since the last call."""
        self._wire._pg.untrace()
        sides = [line.split("\t")[1] for line in self._path.read_text().splitlines() if line.count("\t") > 1]
        self._file.seek(0)
        self._file.truncate()
        self._wire._pg.trace(self._file.fileno())
        return sum(before != "F" and now == "F" for before, now in zip(["", *sides], sides, strict=False))

    def close(self):
        self._wire._pg.untrace()
        self._file.close()


@pytest.fixture
def trace(storage, tmp_path):
    trace = Trace(storage, tmp_path)
    yield trace
    trace.close()


def test_round_trips_are_as_few_as_documented(storage, trace):
    """Each operation costs as many round trips as the module's table says, the second time that a process does it."""
    steps = Steps(storage)

    def cost(work):
        trace.round_trips()
        work()
        return trace.round_trips()

    assert cost(lambda: steps.fire("page")) == 2, "a session that is not there"
    steps.configure({**SURVEY, **PAGES})
    steps.fire("page")
    steps.fire("page")
    assert cost(lambda: steps.fire("page", key="k")) == 3
    assert cost(lambda: steps.fire("page", key="k")) == 3, "a repeat"
    assert cost(lambda: steps.start("t_page#0")) == 2
    attempt = steps.start("t_page#1")
    assert cost(lambda: steps.keep_logs(attempt, batch(entry(), entry()))) == 2
    assert cost(lambda: steps.renew(attempt, attempt, attempt)) == 1
    assert cost(lambda: steps.finish(attempt, {"a": 1})) == 3
    assert cost(lambda: steps.claim("t_page#1")) == 2 * 2, "refused, also alone: two claims"
    assert cost(lambda: steps.fail(steps.start("t_page#2"))) == 2 + 2
    assert cost(lambda: steps.replay("t_page#2")) == 2
    assert cost(lambda: steps.release(steps.start("t_page#3"))) == 2 + 2
    assert cost(lambda: storage.due(10, grace=30 * SECOND, include_recent=True)) == 1
    assert cost(lambda: storage.expired(10)) == 1
    assert cost(storage.backlog) == 1
    assert cost(storage.next_at) == 1
    assert cost(lambda: storage.timed_sessions(10, ["default", "other"])) == 1
    assert cost(lambda: storage.timers(steps.uid)) == 1
    assert cost(lambda: steps.head) == 1
    assert cost(lambda: storage.logs(steps.uid)) == 1
    assert cost(lambda: storage.instances(steps.uid)) == 1
    assert cost(lambda: storage.latest(steps.uid, ["page"])) == 1


def test_what_is_foreseen_saves_a_round_trip(storage, trace):
    """What a decision will need comes with the head; a wrong guess costs nothing but itself."""
    steps = Steps(storage)
    steps.configure({**SURVEY, **PAGES})
    steps.fire("page")
    policy = steps.policy
    for turn, (need, expected) in enumerate(
        (
            (need_for(steps.head.rules, "page"), 2),
            (need_for(steps.head.rules, "first"), 3),
            (Need(), 3),
            (None, 3),
            (need_for(steps.head.rules, "page"), 2),
        )
    ):
        trace.round_trips()
        decision = replace(_fire(policy, turn), prefetch=need)
        assert steps.commit(decision).fired[0].number == turn + 2
        assert trace.round_trips() == expected, need
    trace.round_trips()
    changes = steps.claim("t_page#5")
    assert (trace.round_trips(), changes.claimed.number) == (2, 5)
    assert {number: decode(text) for number, text in changes.payloads.items()} == {6: {"turn": 4}}
    assert [decode(firing.kwargs) for firing in steps.firings()[1:]] == [{"turn": n} for n in range(5)]


def test_timers_cost_no_round_trip_of_their_own(storage, trace):
    """They come with what else a decision needs, and are stored with what else it changes."""
    steps = Steps(storage)
    steps.configure(PAGES)
    steps.fire("page")
    needs = Need(waiting=("page",), timers=5, timer_names=("a", "b"))
    for turn, foreseen in enumerate((None, needs, Need())):

        def begin(session):
            found = yield needs
            assert len(found.timers) == len(found.named_timers) == min(turn, 1)  # noqa: B023 - called in this turn
            session.timer_count += 1
            timer = Timer("a", 5, session.timer_count, FIRES, 1)
            return Changes(session, timers={"a": timer, "b": None, "c": None})

        trace.round_trips()
        steps.commit(Decision("set", begin, prefetch=foreseen))
        assert trace.round_trips() == (2 if foreseen == needs else 3)


def test_several_decisions_wait_together_for_a_server(storage, monkeypatch):
    """Not each of them for the whole timeout of the URL."""
    waits = []
    monkeypatch.setattr(storage, "commit", lambda uid, decision, timeout: waits.append(timeout))
    batch = [("a", _fire(Policy(), 1)), ("b", _fire(Policy(), 2))]
    storage.commit_many(batch)
    storage.commit_many(batch, 5)
    assert 30 >= waits[0] >= waits[1] >= 0
    assert 5 >= waits[2] >= waits[3] >= 0


def test_what_is_foreseen_of_a_session_that_is_not_there_is_nothing(storage, trace):
    """Its first firing is made just so."""
    steps = Steps(storage)
    need = Need(waiting=("page",), instances=(("t", 0),))
    trace.round_trips()
    assert steps.commit(replace(_fire(steps.policy, 0), prefetch=need)).fired[0].number == 1
    assert trace.round_trips() == 2


def test_what_is_foreseen_is_loaded_under_the_lock(postgres_url):
    """Firings at once, each with a good guess, see each other: a join is made exactly once, with all that it needs."""
    storages = [PostgresStorage(postgres_url) for _ in range(4)]
    names = [f"part{n}" for n in range(4)]
    for turn in range(15):
        hands = [Steps(storage, f"session {turn}") for storage in storages]
        rules = hands[0].configure({"t_join": {"after": names, "run": "join"}}).session.rules
        at_once(
            [
                partial(hand.commit, decisions.fire(hand.policy, Firing(0, name, "{}", 0), rules))
                for hand, name in zip(hands, names, strict=True)
            ]
        )
        assert hands[0].statuses() == {"t_join#0": "scheduled"}
        assert hands[0]["t_join#0"].taken.keys() == set(names)
    for storage in storages:
        storage.close()


def _fire(policy, turn):
    return decisions.fire(policy, Firing(0, "page", f'{{"turn":{turn}}}', 0))


def test_a_firing_that_is_not_exclusive_is_why_the_flag_is_there(storage, postgres_url, monkeypatch):
    """As a shared decision it is still made exclusively; only where nobody notices what it changes, it is lost."""
    steps, other = Steps(storage), Steps(PostgresStorage(postgres_url))
    steps.configure(PAGES)
    fire = _fire(steps.policy, 0)

    def begin(session):
        changes = yield from fire(session)
        if not session.exclusive:
            other.fire("page")
        return changes

    shared = replace(fire, begin=begin, exclusive=False)
    assert steps.commit(shared).fired[0].number == 2
    assert [firing.number for firing in steps.firings()] == [1, 2]
    monkeypatch.setattr(Changes, "needs_session", False)
    with pytest.raises(StorageError, match="firings"):
        steps.commit(shared)
    assert [firing.number for firing in steps.firings()] == [1, 2, 3], "only the other one's"
    other.storage.close()


def test_a_process_can_die_in_either_run_of_a_decision(storage):
    """Each run passes the point before the commit; death in the second one leaves nothing, as in the first."""
    faults = Faults()
    plain, faulty = Steps(storage), Steps(FaultyStorage(storage, faults))
    plain.configure(PAGES)
    shared = replace(_fire(plain.policy, 0), exclusive=False)
    for hit in (1, 2):
        faults.die_at("before commit of fire", hit)
        with pytest.raises(InjectedCrash):
            faulty.commit(shared)
        faults.revive()
    assert plain.firings() == []
    assert faulty.commit(shared).fired[0].number == 1
    assert faults.reached[-3:] == ["before commit of fire", "before commit of fire", "after commit of fire"]


def test_the_suite_sees_firings_that_are_not_exclusive(postgres_url, monkeypatch):
    """Firings at once over several handles, as the suite makes them, fail without the flag and what watches it."""
    fire = decisions.fire
    monkeypatch.setattr(decisions, "fire", lambda *given: replace(fire(*given), exclusive=False))
    for watched in (True, False):
        place = PostgresPlace(f"{postgres_url}_{watched}".lower())
        try:
            if watched:
                StorageConformance.test_firing_numbers_have_no_gaps(None, place)
                monkeypatch.setattr(Changes, "needs_session", False)
            else:
                with pytest.raises((StorageError, AssertionError)):
                    StorageConformance.test_firing_numbers_have_no_gaps(None, place)
        finally:
            place.close()


def test_an_end_that_finalises_costs_one_more(storage, trace):
    """One more look, for what waits for the final trigger; and one for records that nobody has reviewed."""
    for policy, expected in (
        (Policy(finalizing=Finalizing("end")), 4),
        (Policy(finalizing=Finalizing("end", max_level=30)), 5),
    ):
        steps = Steps(storage, f"session {expected}", policy)
        steps.configure({**PAGES, "t_last": {"after": ["end"], "run": "last"}})
        steps.fire("page")
        attempt = steps.start("t_page#0")
        trace.round_trips()
        assert steps.finish(attempt).session.finalized == 3
        assert trace.round_trips() == expected


def test_rules_are_read_once_by_a_process(postgres_url, tmp_path):
    """The first look at a session whose rules a process has never seen costs one round trip more."""
    Steps(PostgresStorage(postgres_url)).configure(PAGES)
    storage = PostgresStorage(postgres_url)
    trace = Trace(storage, tmp_path)
    steps = Steps(storage)
    trace.round_trips()
    costs = []
    for _ in range(3):
        steps.fire("page")
        costs.append(trace.round_trips())
    trace.close()
    assert costs == [4, 3, 3]


# -- a commit whose answer was lost --------------------------------------------------------------------------


def test_a_commit_whose_answer_was_lost_stands(network):
    """The server has committed, and nobody was told: the storage finds out, and fires no second time."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    cut = network.cut_at_commit(direction="server", deliver=False)
    assert steps.fire("page", {"n": 1}).fired[0].number == 1
    assert cut.made == 1
    assert [firing.number for firing in steps.firings()] == [1]
    assert steps.fire("page").fired[0].number == 2


def test_a_claim_and_an_end_whose_answers_were_lost_stand(network):
    """So do claims, records and ends: the worker goes on as if nothing had been."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    steps.fire("page")
    network.cut_at_commit(direction="server", deliver=False)
    attempt = steps.start("t_page#0")
    network.cut_at_commit(direction="server", deliver=False)
    steps.keep_logs(attempt, batch(entry()))
    network.cut_at_commit(direction="server", deliver=False)
    assert not steps.finish(attempt, {"a": 1}).refused
    assert [firing.trigger for firing in steps.firings()] == ["page", "t_page"]
    assert (steps["t_page#0"].attempt, steps["t_page#0"].log_count) == (1, 1)
    assert network.proxy.traffic.cut == 3


def test_a_commit_that_never_arrived_is_made_anew(network):
    """The connection was lost before the server was told: the decision is made again, and stored once."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    cut = network.cut_at_commit(direction="client", deliver=False)
    assert steps.fire("page", {"n": 1}).fired[0].number == 1
    assert cut.made == 1
    assert [firing.number for firing in steps.firings()] == [1]


@pytest.mark.parametrize("first", ["lost before", "lost after"])
def test_a_new_session_is_made_once(network, first):
    """The very first commit of a session, lost before it was made or after, makes one session."""
    side = "client" if first == "lost before" else "server"
    network.cut_at_commit(direction=side, deliver=False)
    steps = Steps(network.storage, first)
    assert steps.fire("page").fired[0].number == 1
    assert steps.head.firings == 1
    assert [session.uid for session in network.storage.sessions()] == [first]


#: The first commit that fires never comes to its end.
SLOW = """
CREATE SEQUENCE {schema}.tries;
CREATE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval(TG_TABLE_SCHEMA || '.tries') = 1 THEN PERFORM pg_sleep(3600); END IF;
    RETURN NEW;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {schema}.firings DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION {schema}.slow()
"""


def test_a_commit_still_under_way_is_ended_and_made_anew(network, run_sql):
    """The server is committing, and cannot get on: its process is ended, what it did is gone, and it is done again."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    run_sql(SLOW)
    cut = network.cut_at_commit(direction="client", deliver=True)
    assert steps.fire("page").fired[0].number == 1
    assert cut.made == 1
    assert run_sql("SELECT last_value FROM {schema}.tries").fetchone() == (2,)
    assert [firing.number for firing in steps.firings()] == [1]


def _until(found, seconds=30):
    pause = threading.Event()
    for _ in range(seconds * 50):
        if answer := found():
            return answer
        pause.wait(0.02)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize("stored", [True, False])
def test_after_a_crash_of_the_server_its_word_is_not_enough(network, run_sql, stored):
    """It may have given the number of a lost transaction to another one: what was fired is looked for."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    steps.fire("page")
    unclear = _unclear(network, steps, stored=stored)
    run_sql("UPDATE {schema}.incarnation SET mark = 'after the crash'")
    if not stored:  # as if the number were that of another transaction
        unclear.decided = unclear.decided._replace(transaction=_committed(run_sql))
    network.storage._pool.forget()
    assert network.storage._was_committed(unclear, None) is stored


@pytest.mark.parametrize("stored", [True, False])
def test_after_a_crash_of_the_server_the_history_tells_whether_a_move_is_stored(network, run_sql, stored):
    """Other commits have changed the instance since, so only its history, which keeps every move, can tell."""
    steps, caught = Steps(network.storage), []
    steps.configure(PAGES)
    steps.fire("page")
    network.storage._was_committed = lambda unclear, _: caught.append(unclear) or stored
    network.cut_at_commit(direction="server" if stored else "client", deliver=False)
    claimed = steps.claim("t_page#0", "one").claimed
    del network.storage._was_committed
    steps.finish(AttemptReport(claimed.task, claimed.number, claimed.fence, claimed.attempt))
    (unclear,) = caught
    run_sql("UPDATE {schema}.incarnation SET mark = 'after the crash'")
    unclear.decided = unclear.decided._replace(transaction=_committed(run_sql))
    network.storage._pool.forget()
    assert network.storage._was_committed(unclear, None) is stored


@pytest.mark.parametrize("since", ["nothing", "another commit"])
@pytest.mark.parametrize("stored", [True, False])
def test_after_a_crash_of_the_server_a_timer_tells_whether_it_is_stored(network, run_sql, stored, since):
    """The commit has fired nothing and touched no instance. Its head can have been overwritten since."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    unclear = _unclear_timer(network, steps, stored=stored)
    if since == "another commit":
        steps.describe({"n": 1})
    run_sql("UPDATE {schema}.incarnation SET mark = 'after the crash'")
    unclear.decided = unclear.decided._replace(transaction=_committed(run_sql))
    network.storage._pool.forget()
    assert network.storage._was_committed(unclear, None) is stored


def test_after_a_crash_of_the_server_a_time_that_stood_still_tells_nothing(network, run_sql):
    """The head has the time of the commit before, so it cannot be told from what was there."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    unclear = _unclear_timer(network, steps, stored=False, stands_still=True)
    unclear.decided.changes.timers.clear()
    run_sql("UPDATE {schema}.incarnation SET mark = 'after the crash'")
    unclear.decided = unclear.decided._replace(transaction=_committed(run_sql))
    network.storage._pool.forget()
    with pytest.raises(StorageError, match="cannot be told"):
        network.storage._was_committed(unclear, None)


def test_after_a_crash_of_the_server_each_thing_is_looked_for_by_its_own_time(network, run_sql):
    """A commit can fire at several times, as of earlier ones than that of its head."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    steps.fire("page")
    unclear = _unclear(network, steps, stored=True)
    run_sql("UPDATE {schema}.incarnation SET mark = 'after the crash'")
    network.storage._pool.forget()
    changes = unclear.decided.changes
    changes.session.modified_at += 5
    assert network.storage._was_committed(unclear, None) is True
    changes.fired.clear()
    changes.created[0].history = "1 no line of this commit\n"
    assert network.storage._was_committed(unclear, None) is True


def _unclear_timer(network, steps, *, stored, stands_still=False):
    """A commit that sets a timer and whose answer was lost, as the storage sees it before it asks."""
    caught = []

    def begin(session):
        yield Need()
        session.timer_count += 1
        session.modified_at += 0 if stands_still else 1
        timer = Timer("a", 5, session.timer_count, FIRES, 1)
        return Changes(session, timers={"a": timer, "b": None})

    network.storage._was_committed = lambda unclear, _: caught.append(unclear) or True
    network.cut_at_commit(direction="server" if stored else "client", deliver=False)
    steps.commit(Decision("set a timer", begin))
    del network.storage._was_committed
    return caught[0]


def test_a_number_that_the_server_has_not_given_yet_is_not_committed(network, run_sql):
    """A server that fell before anything of the transaction was on its disk knows nothing of it."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    unclear = _unclear(network, steps, stored=False)
    unclear.decided = unclear.decided._replace(transaction=str(int(_committed(run_sql)) + 1_000_000))
    assert network.storage._was_committed(unclear, None) is False


def test_what_nobody_can_tell_is_an_error_that_says_so(network, run_sql):
    """After a crash, of a change that left no trace of its own: better an error than a lie."""
    steps = Steps(network.storage)
    steps.configure(PAGES)
    unclear = _unclear(network, steps, stored=True)
    changes = unclear.decided.changes
    changes.fired.clear()
    changes.session.modified_at += 1
    changes.created.clear()
    changes.transitioned.clear()
    run_sql("UPDATE {schema}.incarnation SET mark = 'after the crash'")
    network.storage._pool.forget()
    with pytest.raises(
        StorageError,
        match=r"it cannot be told whether the commit was made .*look at the session before you try again",
    ):
        network.storage._was_committed(unclear, None)


def test_a_server_that_stays_away_after_a_commit_is_an_error_that_says_so(
    postgres_server, postgres_url, run_sql
):
    """The answer was lost, and the server lets nobody in any more: the caller must not take it for undone."""
    if not postgres_server.private:
        pytest.skip("needs a server that is reached over a Unix socket")
    name = postgres_url.rpartition("=")[2]
    run_sql(f"CREATE ROLE {name} LOGIN SUPERUSER")
    network = Network(postgres_url.replace("postgres@", f"{name}@"), "prepare=off&timeout=2")
    steps = Steps(network.storage)
    steps.configure(PAGES)
    network.cut_at_commit(direction="server", deliver=False)
    run_sql(f"ALTER ROLE {name} NOLOGIN")
    with pytest.raises(
        StorageError, match=r"during a commit of session 'session' .*cannot be told .*not permitted to log in"
    ):
        steps.fire("page")
    network.proxy.close()
    run_sql(f"DROP OWNED BY {name} CASCADE")
    run_sql(f"DROP ROLE {name}")


def _committed(run_sql):
    return run_sql("SELECT pg_current_xact_id()::text").fetchone()[0]


def _unclear(network, steps, *, stored):
    """A commit whose answer was lost, as the storage sees it before it asks."""
    caught = []
    stands = network.storage._was_committed

    def catch(unclear, timeout):
        caught.append(unclear)
        del network.storage._was_committed
        return stands(unclear, timeout)

    network.storage._was_committed = catch
    network.cut_at_commit(direction="server" if stored else "client", deliver=False)
    steps.fire("page", {"n": 2})
    if stored:
        return caught[0]
    caught[0].decided.changes.fired[0] = caught[0].decided.changes.fired[0]._replace(number=99)
    return caught[0]


# -- retries -------------------------------------------------------------------------------------------------


def test_connections_that_were_ended_are_made_anew(storage, run_sql, postgres_url):
    """Whatever the server ends, by a restart or an administrator, is not seen by the caller."""
    steps = Steps(storage)
    name = postgres_url.rpartition("=")[2]
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE %s"
    for number in range(1, 4):
        at_once([storage.now] * 4)
        assert steps.fire("page").fired[0].number == number
        run_sql(others, f"%{name}%")


def test_a_deadlock_is_decided_anew(storage, run_sql):
    """The server ends one of two that wait for each other; if it is ours, it waits and tries again."""
    steps = Steps(storage)
    steps.configure(PAGES)
    steps.fire("page")
    attempt = steps.start("t_page#0")
    run_sql("SET deadlock_timeout = '1h'")
    run_sql("BEGIN")
    run_sql("SELECT 1 FROM {schema}.instances FOR UPDATE")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(steps.finish, attempt)
        _until(lambda: run_sql("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone())
        run_sql("UPDATE {schema}.sessions SET pending = pending")
        run_sql("COMMIT")
        assert not ended.result(timeout=60).refused
    assert steps.statuses() == {"t_page#0": "finished"}


def test_serialization_failures_are_tried_again(storage, run_sql):
    """As any trigger of the administrator's may raise them."""
    steps = Steps(storage)
    steps.configure(PAGES)
    run_sql("CREATE SEQUENCE {schema}.tries")
    body = """DECLARE tried bigint; BEGIN tried := nextval('{schema}.tries'); IF tried < 4 THEN
        RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END IF; RETURN NEW; END"""
    run_sql(f"CREATE FUNCTION {{schema}}.again() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
    run_sql("CREATE TRIGGER again BEFORE INSERT ON {schema}.firings EXECUTE FUNCTION {schema}.again()")
    assert steps.fire("page").fired[0].number == 1
    assert run_sql("SELECT last_value FROM {schema}.tries").fetchone() == (4,)


def test_a_session_that_stays_locked_is_an_error_after_a_while(storage, run_sql):
    """As long as the caller is patient, and no longer; nothing has changed."""
    steps = Steps(storage)
    steps.configure(PAGES)
    run_sql("BEGIN")
    run_sql("SELECT 1 FROM {schema}.sessions FOR UPDATE")
    with pytest.raises(StorageBusyError, match=r"lock timeout .*nothing was changed"):
        storage.commit("session", decisions.add_session_metadata(Policy(), {"a": 1}), timeout=0.1)
    run_sql("ROLLBACK")
    assert steps.fire("page").fired[0].number == 1


def test_claims_and_records_do_not_wait_for_firings(storage, run_sql):
    """While the session is locked, workers claim, send heartbeats, keep records, and let go."""
    steps = Steps(storage)
    steps.configure(PAGES)
    steps.fire("page")
    run_sql("BEGIN")
    run_sql("SELECT 1 FROM {schema}.sessions FOR UPDATE")
    attempt = steps.start("t_page#0")
    steps.keep_logs(attempt, LogBatch([entry()], {30: 1}, 0))
    assert steps.renew(attempt) == set()
    assert not steps.release(attempt).refused
    run_sql("ROLLBACK")
    assert (steps["t_page#0"].log_count, steps["t_page#0"].status.value) == (1, "scheduled")


def test_all_connections_in_use_is_an_error_that_says_so(postgres_url):
    """With the pool's size in it; a connection that comes back is used."""
    storage = PostgresStorage(f"{postgres_url}&pool_size=1&timeout=0.2")
    with (
        storage._pool.wire(0) as _,
        pytest.raises(StorageBusyError, match=r"all 1 connections .*raise pool_size"),
    ):
        storage.now()
    assert storage.now() > 0
    storage.close()


def test_threads_share_few_connections(postgres_url, run_sql):
    """Sixteen threads with room for three connections use three, and all get through."""
    storage = PostgresStorage(f"{postgres_url}&pool_size=3")
    name = postgres_url.rpartition("=")[2]
    numbers = at_once([lambda: Steps(storage).fire("page").fired[0].number] * 16)
    assert sorted(numbers) == list(range(1, 17))
    used = run_sql(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()", f"%{name}%"
    )
    assert used.fetchone()[0] <= 3
    storage.close()


def test_a_decision_that_raises_leaves_no_transaction_open(storage, run_sql):
    """The connection is rolled back before it is lent again."""

    def begin(_):
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        storage.commit("session", Decision("test", begin))
    name = storage._url.schema
    open_ones = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%' AND query LIKE %s"
    )
    assert run_sql(open_ones, f"%{name}%").fetchone() == (0,)
    assert Steps(storage).fire("page").fired[0].number == 1


def test_a_storage_that_was_closed_opens_again(storage):
    """As often as one likes."""
    for number in range(1, 4):
        storage.close()
        storage.close()
        assert Steps(storage).fire("page").fired[0].number == number


def test_many_statements_fit_into_one_exchange(storage):
    """A decision with thousands of changes is one commit; neither side waits for the other to read."""
    steps = Steps(storage)
    for n in range(300):
        steps.fire("page", {"n": n})
    many = {f"t_{n}": {"andEvery": "page", "run": "page"} for n in range(20)}
    made = steps.configure(many, catch_up=True).created
    assert len(made) == 6_000
    assert storage.backlog().ready == 6_000
