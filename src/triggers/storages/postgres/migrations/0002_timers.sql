-- Timers, and columns that no statement uses yet. A migration must not rewrite a table: every new column may be NULL or
-- has a constant default, so that adding it changes no row. The two indexes are empty at first, but each is made by
-- reading its table once.

-- next_timer_at: when the first timer of the session is due, NULL without timers. It can be too early, never too late.
-- timer_count: how many timers were ever set; also the number of the latest one.
-- labels: not used yet; short texts by which people find the session, as a JSON object.
-- held: not used yet; since when the session is on hold. Then no instance becomes due and no timer elapses.
ALTER TABLE {schema}.sessions
    ADD COLUMN next_timer_at bigint,
    ADD COLUMN timer_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN labels text,
    ADD COLUMN held bigint;

-- Sessions that have timers. A session without timers has no entry, and a firing that leaves the time as it is changes
-- none. As in instances_due, removed entries remain at the beginning of the index until a vacuum.
CREATE INDEX sessions_timed ON {schema}.sessions (manager, next_timer_at) WHERE next_timer_at IS NOT NULL;
ALTER TABLE {schema}.sessions SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

-- What happens in a session at a time. `number` is the position in the order in which the timers of the session were
-- set. `body` is a JSON list with everything else, which no statement looks into.
CREATE TABLE {schema}.timers (
    session bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    number bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (session, name)
);
CREATE INDEX timers_order ON {schema}.timers (session, at, number);

-- From here on: not used yet.

-- carrier: the trace in which the firing happened (W3C traceparent). It is not part of the fingerprint.
ALTER TABLE {schema}.firings ADD COLUMN carrier text;

-- count: how often the name was fired, if a rule counts it. running, called: how many instances hold a slot of this
-- counter, and how many were told that one is free for them. NULL for nothing counted.
ALTER TABLE {schema}.names
    ADD COLUMN count bigint,
    ADD COLUMN running bigint,
    ADD COLUMN called bigint;

-- grp: the group that the instance belongs to ("group" is a word of SQL). origin: the number of its first ancestor, over
-- all replays. slot: the name of the counter whose slot it holds or waits for. parked_at: since when it waits for one.
-- failed_at: when it failed, which a later review does not change. stop_requested: who asked the task to stop, when
-- and why, as a JSON object.
ALTER TABLE {schema}.instances
    ADD COLUMN grp text COLLATE "C",
    ADD COLUMN origin bigint,
    ADD COLUMN slot text COLLATE "C",
    ADD COLUMN parked_at bigint,
    ADD COLUMN failed_at bigint,
    ADD COLUMN stop_requested text;

-- The lines of instances that wait for a slot, each in its order.
CREATE INDEX instances_parked ON {schema}.instances (session, slot, parked_at, number) WHERE parked_at IS NOT NULL;

-- Which first ancestors a count has counted under a name, so that each counts once, however often it is replayed.
CREATE TABLE {schema}.origins (
    session bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    origin bigint NOT NULL,
    PRIMARY KEY (session, name, origin)
);

-- What people did, and why. `act` is what was done, such as "replay"; `target` is the instance or firing that it was
-- done to; `details` is a JSON object.
CREATE TABLE {schema}.acts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session bigint NOT NULL,
    at bigint NOT NULL,
    actor text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    act text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    details text NOT NULL DEFAULT '{}'
);
CREATE INDEX acts_session ON {schema}.acts (session, id);
