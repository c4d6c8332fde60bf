"""Decisions in a PostgreSQL transaction: what a decision is shown, and the statements that its changes are.

Nothing here knows of connections: a :data:`Run` sends statements together and brings their rows, in
whatever transaction it is in, which it neither begins nor ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.core.columns import RECORD, names_of
from triggers.core.exchange import Changes, Need, Slice
from triggers.core.rules import RuleSet, read_rules
from triggers.core.state import Counter, Latest, Session
from triggers.storages.base import run_decision
from triggers.storages.sql import rows, statements

if TYPE_CHECKING:
    from triggers.core.exchange import Decision, Record
    from triggers.storages.base import StoredRecord

Row = tuple[Any, ...]

#: A statement's name and its parameters: None, bool, int, str, or a list of one of them.
Step = tuple[str, Sequence[Any]]

#: Runs statements together, in this order, and returns the rows of each.
Run = Callable[[Sequence[Step]], list[list[Row]]]

#: So many rule sets are kept read in memory.
RULES_KEPT: Final = 1_000

#: A record that no review covers.
OPEN: Final = (
    "(logs.counts AND logs.number > instances.log_resolved"
    " AND NOT instances.log_chosen::jsonb @> to_jsonb(logs.number))"
)

#: As :data:`triggers.storages.sql.rows.PURGEABLE`.
PURGEABLE: Final = (
    "logs.at < $1 AND logs.level <= $2"
    f" AND NOT (instances.log_unresolved > 0 AND logs.level >= least($3, instances.log_unresolved) AND {OPEN}"
    f" AND instances.status NOT IN ({rows.SETTLED_VALUES}))"
    " AND (NOT $4::boolean OR logs.context <> '{}'"
    """ OR position('"context":' IN replace(coalesce(logs.exception, ''), '"context":{}', '')) > 0)"""
)

_PARTS: Final = {
    **rows.placeholders(ref="session", is_open=OPEN),
    "{open}": OPEN,
    "{purgeable}": PURGEABLE,
    "{session}": "(SELECT id FROM {schema}.sessions WHERE uid = $1)",
}

_KEY: Final = ("ref", "task", "number")

#: What the statements take that write columns.
_FIRING: Final = rows.Writer(rows.FIRING, given=("session",))
_CREATED: Final = rows.Writer(rows.CREATED, ("ref",))
_TRIGGERED: Final = rows.Writer(rows.TRIGGERED, _KEY)
_TRANSITIONED: Final = rows.Writer(rows.TRANSITIONED, _KEY, rows.GUARD)
_RECORD: Final = rows.Writer(RECORD, given=("session", "task", "instance"))
_WRITERS: Final = {
    "firing_insert": _FIRING,
    "instance_insert": _CREATED,
    "instance_take": _TRIGGERED,
    "instance_move": _TRANSITIONED,
    "log_insert": _RECORD,
}


def quoted(name: str) -> str:
    """The name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a string in SQL, whatever the server takes a backslash for."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def in_schema(text: str, schema: str) -> str:
    """The SQL, for tables in that schema."""
    text = text.replace("{session_numbers}", literal(f"{quoted(schema)}.session_numbers"))
    text = text.replace("{log_lock}", literal(f"triggers {schema} logs"))
    text = text.replace("{migration_lock}", literal(f"triggers {schema} schema"))
    return text.replace("{schema}", quoted(schema))


def texts(schema: str) -> dict[str, str]:
    """Name → statement, for tables in that schema; parameters are $1, $2 and so on.

    What a decision may ask for can also be asked with the session's UID instead of its number, by the name
    with `_of` behind it.
    """
    found = {}
    for name, text in statements("postgres").items():
        for part, meaning in _PARTS.items():
            text = text.replace(part, meaning)  # noqa: PLW2901 - filled in step by step
        if name in _WRITERS:
            text = _WRITERS[name].filled_in(text, "$")  # noqa: PLW2901 - filled in step by step
        if "{order}" in text:
            found[f"{name}_latest"] = in_schema(text.replace("{order}", "DESC"), schema)
        found[name] = in_schema(text.replace("{order}", "ASC"), schema)
        if name in _KEEP:
            found[f"{name}_of"] = in_schema(text.replace("$1", _PARTS["{session}"]), schema)
    return found


class PlannedCommit(NamedTuple):
    """What was decided, and not yet stored.

    Attributes:
        changes: the changes.
        steps: what stores them, to be sent together with the end of the transaction.
        transaction: the transaction's number.
    """

    changes: Changes
    steps: list[Step]
    transaction: str


class DecisionRunner:
    """Makes decisions in transactions that are begun and ended elsewhere.

    It keeps the rule sets that it has read; they never change. One serves any number of threads.
    """

    def __init__(self) -> None:
        self._rules: dict[int, RuleSet] = {}
        self._stored: set[str] = set()

    def decide(
        self, run: Run, uid: str, decision: Decision, *, exclusive: bool, before: Sequence[Step] = ()
    ) -> PlannedCommit:
        """Load the session, let the decision be made, and say what is to be stored.

        Args:
            run: runs statements in an open transaction, or in one that `before` begins.
            uid: the session.
            decision: the decision. What it will most likely need is loaded together with the head.
            exclusive: lock the session first.
            before: statements to be sent along with the first one.

        Raises:
            NeedsSession: it must be made again, exclusively.
        """
        prefetch = decision.prefetch
        guess = [] if prefetch is None else _questions(uid, prefetch, "_of")
        answers = run([*before, ("head_alone" if exclusive else "head", (uid,)), *guess])[len(before) :]
        now, transaction, fresh, ref, *rest = answers[0][0]
        if ref is None:
            session = Session(uid, now)
        else:
            (rules,) = self.rules(run, [rest[0]])
            session = Session(uid, now, ref, rules, *rest[1:])

        def load(need: Need) -> Slice:
            if ref is None:
                return Slice()
            steps = _questions(ref, need)
            return _slice(need, steps, answers[1:] if need == prefetch else run(steps) if steps else [])

        changes = run_decision(decision, session, load, exclusive=exclusive)
        return PlannedCommit(changes, list(self._steps(changes, ref, fresh)), transaction)

    def sessions(self, run: Run, found: list[Row]) -> list[Session]:
        """The heads in these rows, as `session` and `sessions` select them."""
        every = self.rules(run, [rules for _, _, rules, *_ in found])
        return [
            Session(uid, now, ref, rules, *rest)
            for (now, ref, _, *rest, uid), rules in zip(found, every, strict=True)
        ]

    def rules(self, run: Run, refs: Sequence[int]) -> list[RuleSet]:
        """The rule sets of these numbers; those that were never seen are read, in one exchange."""
        kept = self._rules
        known = {ref: kept[ref] for ref in refs if ref in kept}
        missing = [ref for ref in dict.fromkeys(refs) if ref not in known]
        if missing:
            read = {ref: read_rules(body) for ref, body in run([("rules", (missing,))])[0]}
            self._keep(read)
            known |= read
        return [known[ref] for ref in refs]

    def _keep(self, read: dict[int, RuleSet]) -> None:
        if len(self._rules) + len(read) > RULES_KEPT:
            self._rules, self._stored = {}, set()
        self._rules |= read
        self._stored |= {rules.digest for rules in read.values()}

    def _steps(self, changes: Changes, ref: int | None, fresh: int | None) -> Iterator[Step]:
        head = changes.session
        if (
            changes.writes_head
            and (head.ref is None or changes.new_rules)
            and head.rules.digest not in self._stored
        ):
            yield "rules_insert", (head.rules.digest, head.rules.body)
        if changes.writes_head:
            yield from _head(changes, fresh)
        if head.ref is None:
            head.ref = fresh if changes.writes_head else None
            ref = head.ref
        if ref is not None:
            yield from _body(changes, ref)


def _head(changes: Changes, fresh: int | None) -> Iterator[Step]:
    head = changes.session
    numbers = (head.manager, head.firings, head.pending, head.finalized, head.metadata)
    if head.ref is None:
        made = (head.uid, *numbers, head.created_at, head.modified_at, fresh, head.rules.digest)
        yield "session_insert", made
        return
    yield "session_update", (*numbers, head.modified_at, head.ref)
    if changes.new_rules:
        yield "session_rules", (head.rules.digest, head.ref)


def _body(changes: Changes, ref: int) -> Iterator[Step]:
    for firing in changes.fired:
        yield "firing_insert", _FIRING.write(firing, ref)
        yield "latest_upsert", (ref, firing.trigger, firing.number, firing.depth)
    for made in changes.created:
        made.ref = ref
        yield "instance_insert", _CREATED.write(made)
    for taken in changes.triggered:
        yield "instance_take", _TRIGGERED.write(taken)
    for moved, guard in changes.transitioned:
        yield "instance_move", _TRANSITIONED.write(moved, guard.status.value, guard.fence, guard.lease_until)
    for name, entries in (("waiting_delete", changes.gained), ("waiting_insert", changes.lacks)):
        for instance, triggers in entries:
            yield name, (ref, instance.task, instance.number, sorted(triggers))
    for task, counter in changes.counters.items():
        yield "counter_upsert", (ref, task, counter.created, counter.unresolved)
    # Last, so that who waits for this turn waits for nothing but the end of the transaction.
    if changes.logs:
        yield "log_turn", (ref,)
    for record in changes.logs:
        yield "log_insert", new_record(ref, record)


# -- a slice ---------------------------------------------------------------------------------------------


def _questions(session: int | str, need: Need, suffix: str = "") -> list[Step]:
    """The statements that load it, for a session's number, or with the suffix for its UID."""
    steps = [*_usual_questions(session, need), *_rare_questions(session, need)]
    return [(f"{name}{suffix}", given) for name, given in steps] if suffix else steps


def _slice(need: Need, steps: Sequence[Step], answers: Sequence[list[Row]]) -> Slice:
    found = Slice()
    for (name, _), answered in zip(steps, answers, strict=True):
        _KEEP[name](found, need, answered)
    return found


def _usual_questions(session: int | str, need: Need) -> Iterator[Step]:
    if need.key:
        yield "keyed", (session, *need.key)
    if need.tasks is None:
        yield "counters_all", (session,)
    elif need.tasks or need.latest:
        yield "names", (session, [*need.tasks, *need.latest])
    for trigger in need.waiting:
        yield "waiting", (session, trigger)
    for where in need.instances:
        yield "instance_locked", (session, *where)
        if need.payloads:
            yield "payloads", (session, *where)


def _rare_questions(session: int | str, need: Need) -> Iterator[Step]:
    if need.unstarted:
        yield "unstarted", (session, [*need.unstarted])
    if need.history:
        yield "history", (session, [*need.history])
    if need.flagged is not None:
        yield "flagged", (session, need.flagged, need.flagged_limit)
    if need.levels:
        beyond, threshold, chosen = need.levels
        yield "log_level", (session, *need.instances[0], beyond, threshold, chosen)


def _keep_keyed(found: Slice, _: Need, answered: list[Row]) -> None:
    for row in answered:
        found.keyed = rows.firing_from_row(row)


def _keep_names(found: Slice, need: Need, answered: list[Row]) -> None:
    tasks = need.tasks or ()
    for name, created, unresolved, latest, depth in answered:
        if created and name in tasks:
            found.counters[name] = Counter(created, unresolved)
        if latest and name in need.latest:
            found.latest[name] = Latest(latest, depth)


def _keep_counters(found: Slice, _: Need, answered: list[Row]) -> None:
    found.counters = {name: Counter(*counted) for name, *counted in answered}


def _keep_instances(found: Slice, _: Need, answered: list[Row]) -> None:
    found.instances += map(rows.instance_from_row, answered)


def _keep_payloads(found: Slice, _: Need, answered: list[Row]) -> None:
    found.payloads.update({number: kwargs for number, kwargs in answered})  # noqa: C416 - rows are of any type


def _keep_history(found: Slice, _: Need, answered: list[Row]) -> None:
    found.history = [rows.firing_from_row(row) for row in answered]


def _keep_flagged(found: Slice, _: Need, answered: list[Row]) -> None:
    found.flagged = [(task, number) for task, number in answered]


def _keep_level(found: Slice, _: Need, answered: list[Row]) -> None:
    ((found.level,),) = answered


_KEEP: Final[dict[str, Callable[[Slice, Need, list[Row]], None]]] = {
    "keyed": _keep_keyed,
    "counters_all": _keep_counters,
    "names": _keep_names,
    "waiting": _keep_instances,
    "instance_locked": _keep_instances,
    "payloads": _keep_payloads,
    "unstarted": _keep_instances,
    "history": _keep_history,
    "flagged": _keep_flagged,
    "log_level": _keep_level,
}


# -- records ---------------------------------------------------------------------------------------------

# PostgreSQL's texts have no NUL. It is written with two characters that hardly any text has, and which are
# then written with them, too. No word begins within another, or across two: a search finds what it should.
_E, _F = "\ufdd0", "\ufdd1"
_ESCAPES: Final = {"\0": _E + _E + _E + _F, _E: _E + _E + _F + _F, _F: _E + _F + _F + _F}
_BACK: Final = {word: character for character, word in _ESCAPES.items()}
_TABLE: Final = str.maketrans(_ESCAPES)
_WORD: Final = re.compile(f"[{_E}{_F}]{{4}}")

#: Texts that somebody said: their places among what is written, and among what `{log_columns}` selects.
_SAID: Final = ("logger", "message", "template", "pathname", "function")
_WRITTEN: Final = tuple(map(names_of(RECORD).index, _SAID))
_READ: Final = tuple(map(rows.LOG.index, _SAID))


def escaped(text: str) -> str:
    """A text that may have NUL characters, as one that has none."""
    return text.translate(_TABLE)


def unescaped(text: str) -> str:
    """The text that was escaped."""
    return _WORD.sub(lambda word: _BACK[word[0]], text) if _E in text else text


def new_record(ref: int, record: Record) -> list[Any]:
    """What `log_insert` takes."""
    values = list(_RECORD.write(record, ref, record.instance.task, record.instance.number))
    for place in _WRITTEN:
        text = values[place]
        if not text.isascii() or "\0" in text:
            values[place] = escaped(text)
    return values


def record_from_row(row: Row) -> StoredRecord:
    """Read what `logs` selects."""
    values = list(row)
    for place in _READ:
        values[place] = unescaped(values[place])
    return rows.record_from_row(values)
