-- The first schema. Times are microseconds since the Unix epoch; payloads are the core's encoded text.

-- Each rule set is stored once, under the SHA-256 of its canonical text, however many sessions use it.
CREATE TABLE rule_sets (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL
);

-- The heads of sessions: small, and of constant size.
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    rules INTEGER NOT NULL REFERENCES rule_sets,
    manager TEXT NOT NULL,
    firings INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    finalized INTEGER,
    metadata TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    modified_at INTEGER NOT NULL
);

-- Every firing once, with its payload. Instances refer to firings by number.
CREATE TABLE firings (
    session INTEGER NOT NULL REFERENCES sessions,
    number INTEGER NOT NULL,
    trigger TEXT NOT NULL,
    kwargs TEXT NOT NULL,
    at INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    source TEXT NOT NULL,
    key TEXT,
    fingerprint TEXT,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX firings_key ON firings (session, trigger, key) WHERE key IS NOT NULL;

-- For each task, how many instances it has; the next one gets the number `created`. For each trigger, the number and
-- the depth of its latest firing. The name of a task is also a trigger.
CREATE TABLE names (
    session INTEGER NOT NULL REFERENCES sessions,
    name TEXT NOT NULL,
    created INTEGER NOT NULL DEFAULT 0,
    unresolved INTEGER NOT NULL DEFAULT 0,
    latest INTEGER,
    depth INTEGER,
    PRIMARY KEY (session, name)
) WITHOUT ROWID;

CREATE TABLE instances (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions,
    task TEXT NOT NULL,
    number INTEGER NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    crash_budget INTEGER NOT NULL DEFAULT 3,
    given_back INTEGER NOT NULL DEFAULT 0,
    run_at INTEGER NOT NULL DEFAULT 0,
    dispatch_after INTEGER NOT NULL DEFAULT 0,
    handovers INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    owner TEXT NOT NULL DEFAULT '',
    parent INTEGER,
    root INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    retries INTEGER NOT NULL,
    cascade_depth INTEGER NOT NULL,
    taken TEXT NOT NULL,
    vetoes TEXT NOT NULL,
    kwargs TEXT,
    result INTEGER,
    error TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    history TEXT NOT NULL,
    log_count INTEGER NOT NULL DEFAULT 0,
    log_level INTEGER NOT NULL DEFAULT 0,
    log_unresolved INTEGER NOT NULL DEFAULT 0,
    log_counts TEXT NOT NULL DEFAULT '{}',
    log_dropped INTEGER NOT NULL DEFAULT 0,
    log_resolved INTEGER NOT NULL DEFAULT 0,
    log_chosen TEXT NOT NULL DEFAULT '[]',
    log_audit TEXT NOT NULL DEFAULT '[]'
);
CREATE UNIQUE INDEX instances_name ON instances (session, task, number);

-- The outbox: a scheduled instance is its own entry, and a claim removes it.
CREATE INDEX instances_due ON instances (dispatch_after, run_at) WHERE status = 'scheduled';

-- Claims, by the time at which their leases expire.
CREATE INDEX instances_leased ON instances (lease_until) WHERE status = 'running';

-- Instances with unresolved records.
CREATE INDEX instances_flagged ON instances (session, log_unresolved) WHERE log_unresolved > 0;

-- Which unstarted instance still lacks which trigger. With this index, a firing costs what it touches.
CREATE TABLE waiting (
    session INTEGER NOT NULL REFERENCES sessions,
    trigger TEXT NOT NULL,
    instance INTEGER NOT NULL REFERENCES instances,
    PRIMARY KEY (session, trigger, instance)
) WITHOUT ROWID;

-- An id is never used again, so that a reader that follows a log misses no record that is stored after a purge.
CREATE TABLE logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL REFERENCES sessions,
    instance INTEGER NOT NULL REFERENCES instances,
    number INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    level INTEGER NOT NULL,
    logger TEXT NOT NULL,
    message TEXT NOT NULL,
    template TEXT NOT NULL,
    context TEXT NOT NULL,
    exception TEXT,
    pathname TEXT NOT NULL,
    lineno INTEGER NOT NULL,
    function TEXT NOT NULL,
    truncated TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    late INTEGER NOT NULL,
    counts INTEGER NOT NULL
);
CREATE UNIQUE INDEX logs_number ON logs (instance, number);
CREATE INDEX logs_session ON logs (session, id);
