-- Timers, and columns that no statement uses yet. A migration must not rewrite a table: every new column may be NULL or
-- has a constant default, so that adding it changes no row. The two indexes are empty at first, but each is made by
-- reading its table once.

-- next_timer_at: when the first timer of the session is due, NULL without timers. It can be too early, never too late.
-- timer_count: how many timers were ever set; also the number of the latest one.
ALTER TABLE sessions ADD COLUMN next_timer_at INTEGER;
ALTER TABLE sessions ADD COLUMN timer_count INTEGER NOT NULL DEFAULT 0;

-- Sessions that have timers. A session without timers has no entry.
CREATE INDEX sessions_timed ON sessions (manager, next_timer_at) WHERE next_timer_at IS NOT NULL;

-- What happens in a session at a time. `number` is the position in the order in which the timers of the session were
-- set. `body` is a JSON list with everything else, which no statement looks into.
CREATE TABLE timers (
    session INTEGER NOT NULL REFERENCES sessions,
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (session, name)
) WITHOUT ROWID;
CREATE INDEX timers_order ON timers (session, at, number);

-- From here on: not used yet.

-- labels: short texts by which people find the session, as a JSON object. held: since when the session is on hold; then
-- no instance becomes due and no timer elapses. NULL if it is not.
ALTER TABLE sessions ADD COLUMN labels TEXT;
ALTER TABLE sessions ADD COLUMN held INTEGER;

-- carrier: the trace in which the firing happened (W3C traceparent). It is not part of the fingerprint.
ALTER TABLE firings ADD COLUMN carrier TEXT;

-- count: how often the name was fired, if a rule counts it. running, called: how many instances hold a slot of this
-- counter, and how many were told that one is free for them. NULL for nothing counted.
ALTER TABLE names ADD COLUMN count INTEGER;
ALTER TABLE names ADD COLUMN running INTEGER;
ALTER TABLE names ADD COLUMN called INTEGER;

-- grp: the group that the instance belongs to ("group" is a word of SQL). origin: the number of its first ancestor, over
-- all replays. slot: the name of the counter whose slot it holds or waits for. parked_at: since when it waits for one.
-- failed_at: when it failed, which a later review does not change. stop_requested: who asked the task to stop, when
-- and why, as a JSON object.
ALTER TABLE instances ADD COLUMN grp TEXT;
ALTER TABLE instances ADD COLUMN origin INTEGER;
ALTER TABLE instances ADD COLUMN slot TEXT;
ALTER TABLE instances ADD COLUMN parked_at INTEGER;
ALTER TABLE instances ADD COLUMN failed_at INTEGER;
ALTER TABLE instances ADD COLUMN stop_requested TEXT;

-- The lines of instances that wait for a slot, each in its order.
CREATE INDEX instances_parked ON instances (session, slot, parked_at, number) WHERE parked_at IS NOT NULL;

-- Which first ancestors a count has counted under a name, so that each counts once, however often it is replayed.
CREATE TABLE origins (
    session INTEGER NOT NULL REFERENCES sessions,
    name TEXT NOT NULL,
    origin INTEGER NOT NULL,
    PRIMARY KEY (session, name, origin)
) WITHOUT ROWID;

-- What people did, and why. `act` is what was done, such as "replay"; `target` is the instance or firing that it was
-- done to; `details` is a JSON object. An id is never used again, so that a reader that follows the acts misses none.
CREATE TABLE acts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL REFERENCES sessions,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    act TEXT NOT NULL,
    target TEXT NOT NULL,
    details TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX acts_session ON acts (session, id);
