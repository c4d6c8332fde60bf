-- The first schema. Times are microseconds since the Unix epoch; payloads are the core's encoded text.
-- The key of every row of a session begins with the session's id, and no row has an id of its own. So a firing can send
-- all its statements without waiting for answers, and every table could be partitioned by session.
-- There are no foreign keys. A row is written only by a transaction that has locked its session or its instance. A key
-- would look up and lock the session's row again for every row, also for claims and logs, which never wait for firings.
-- Names are compared by their bytes (COLLATE "C"), whatever the language of the database is.

-- The version of the schema. Older processes read it, and call guard(), to find out that they are too old. So no
-- migration may change this table or that function.
CREATE TABLE {schema}.version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    number integer NOT NULL
);

-- After a crash this table is empty, and the server can assign the number of a lost transaction to another one. The
-- status of a transaction number is reliable only as long as this mark is the same.
CREATE UNLOGGED TABLE {schema}.incarnation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    mark text NOT NULL DEFAULT gen_random_uuid()::text
);

-- The only clock, in microseconds.
CREATE FUNCTION {schema}.clock() RETURNS bigint LANGUAGE sql VOLATILE
    AS 'SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint';

-- Aborts the transaction of a change whose guard no longer holds, before the COMMIT that was sent together with it.
CREATE FUNCTION {schema}.guard(held boolean) RETURNS void LANGUAGE plpgsql
    AS 'BEGIN IF NOT held THEN RAISE EXCEPTION ''a guard no longer holds'' USING ERRCODE = ''TR001''; END IF; END';

-- Each rule set is stored once, under the SHA-256 of its canonical text, however many sessions use it.
CREATE TABLE {schema}.rule_sets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest text COLLATE "C" NOT NULL UNIQUE,
    body text NOT NULL
);

CREATE SEQUENCE {schema}.session_numbers;

-- The heads of sessions: small, and of constant size. The free space in each page allows a firing to update a head
-- within its page, without changing an index.
CREATE TABLE {schema}.sessions (
    id bigint PRIMARY KEY,
    uid text COLLATE "C" NOT NULL CONSTRAINT sessions_uid UNIQUE,
    rules bigint NOT NULL,
    manager text COLLATE "C" NOT NULL,
    firings bigint NOT NULL,
    pending bigint NOT NULL,
    finalized bigint,
    metadata text NOT NULL,
    created_at bigint NOT NULL,
    modified_at bigint NOT NULL
) WITH (fillfactor = 70);

-- Every firing once, with its payload. Instances refer to firings by number. Rows never change.
CREATE TABLE {schema}.firings (
    session bigint NOT NULL,
    number bigint NOT NULL,
    trigger text COLLATE "C" NOT NULL,
    kwargs text NOT NULL,
    at bigint NOT NULL,
    depth bigint NOT NULL,
    source text NOT NULL,
    key text COLLATE "C",
    fingerprint text,
    PRIMARY KEY (session, number)
);
CREATE UNIQUE INDEX firings_key ON {schema}.firings (session, trigger, key) WHERE key IS NOT NULL;

-- For each task, how many instances it has; the next one gets the number `created`. For each trigger, the number and
-- the depth of its latest firing. The name of a task is also a trigger.
CREATE TABLE {schema}.names (
    session bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    created bigint NOT NULL DEFAULT 0,
    unresolved bigint NOT NULL DEFAULT 0,
    latest bigint,
    depth bigint,
    PRIMARY KEY (session, name)
) WITH (fillfactor = 70);

CREATE TABLE {schema}.instances (
    session bigint NOT NULL,
    task text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    modified_at bigint NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    attempt bigint NOT NULL DEFAULT 0,
    crashes bigint NOT NULL DEFAULT 0,
    crash_budget bigint NOT NULL DEFAULT 3,
    given_back bigint NOT NULL DEFAULT 0,
    run_at bigint NOT NULL DEFAULT 0,
    dispatch_after bigint NOT NULL DEFAULT 0,
    handovers bigint NOT NULL DEFAULT 0,
    lease_until bigint,
    owner text NOT NULL DEFAULT '',
    parent bigint,
    root bigint NOT NULL,
    depth bigint NOT NULL,
    retries bigint NOT NULL,
    cascade_depth bigint NOT NULL,
    taken text NOT NULL,
    vetoes text NOT NULL,
    kwargs text,
    result bigint,
    error text,
    metadata text NOT NULL DEFAULT '{}',
    history text NOT NULL,
    log_count bigint NOT NULL DEFAULT 0,
    log_level bigint NOT NULL DEFAULT 0,
    log_unresolved bigint NOT NULL DEFAULT 0,
    log_counts text NOT NULL DEFAULT '{}',
    log_dropped bigint NOT NULL DEFAULT 0,
    log_resolved bigint NOT NULL DEFAULT 0,
    log_chosen text NOT NULL DEFAULT '[]',
    log_audit text NOT NULL DEFAULT '[]',
    PRIMARY KEY (session, task, number)
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

-- The outbox: a scheduled instance is its own entry, and a claim removes it. Removed entries remain at the beginning of
-- the index until a vacuum, and every sweep reads over them. So the table is vacuumed more often than usual.
CREATE INDEX instances_due ON {schema}.instances (dispatch_after, run_at) WHERE status = 'scheduled';

-- Claims, by the time at which their leases expire.
CREATE INDEX instances_leased ON {schema}.instances (lease_until) WHERE status = 'running';

-- Instances with unresolved records.
CREATE INDEX instances_flagged ON {schema}.instances (session, task, number) WHERE log_unresolved > 0;

-- Which unstarted instance still lacks which trigger. With this index, a firing costs what it touches.
CREATE TABLE {schema}.waiting (
    session bigint NOT NULL,
    trigger text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (session, trigger, task, number)
);

-- The records of one session get their ids in the order in which they are committed, so that a reader that follows a
-- log misses nothing.
CREATE TABLE {schema}.logs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session bigint NOT NULL,
    task text COLLATE "C" NOT NULL,
    instance bigint NOT NULL,
    number bigint NOT NULL,
    fence bigint NOT NULL,
    attempt bigint NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    level bigint NOT NULL,
    logger text NOT NULL,
    message text NOT NULL,
    template text NOT NULL,
    context text NOT NULL,
    exception text,
    pathname text NOT NULL,
    lineno bigint NOT NULL,
    function text NOT NULL,
    truncated text NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    late boolean NOT NULL,
    counts boolean NOT NULL
);
-- In this order: of two indexes that seem equal, as they do while the table is empty, the planner takes the later one.
CREATE INDEX logs_session ON {schema}.logs (session, id);
CREATE UNIQUE INDEX logs_number ON {schema}.logs (session, task, instance, number);
