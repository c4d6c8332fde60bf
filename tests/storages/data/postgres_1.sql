CREATE SCHEMA earlier_version;
CREATE TABLE earlier_version.version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    number integer NOT NULL
);
CREATE UNLOGGED TABLE earlier_version.incarnation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    mark text NOT NULL DEFAULT gen_random_uuid()::text
);
CREATE FUNCTION earlier_version.clock() RETURNS bigint LANGUAGE sql VOLATILE
    AS 'SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint';
CREATE FUNCTION earlier_version.guard(held boolean) RETURNS void LANGUAGE plpgsql
    AS 'BEGIN IF NOT held THEN RAISE EXCEPTION ''a guard no longer holds'' USING ERRCODE = ''TR001''; END IF; END';
CREATE TABLE earlier_version.rule_sets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest text COLLATE "C" NOT NULL UNIQUE,
    body text NOT NULL
);
CREATE SEQUENCE earlier_version.session_numbers;
CREATE TABLE earlier_version.sessions (
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
CREATE TABLE earlier_version.firings (
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
CREATE UNIQUE INDEX firings_key ON earlier_version.firings (session, trigger, key) WHERE key IS NOT NULL;
CREATE TABLE earlier_version.names (
    session bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    created bigint NOT NULL DEFAULT 0,
    unresolved bigint NOT NULL DEFAULT 0,
    latest bigint,
    depth bigint,
    PRIMARY KEY (session, name)
) WITH (fillfactor = 70);
CREATE TABLE earlier_version.instances (
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
CREATE INDEX instances_due ON earlier_version.instances (dispatch_after, run_at) WHERE status = 'scheduled';
CREATE INDEX instances_leased ON earlier_version.instances (lease_until) WHERE status = 'running';
CREATE INDEX instances_flagged ON earlier_version.instances (session, task, number) WHERE log_unresolved > 0;
CREATE TABLE earlier_version.waiting (
    session bigint NOT NULL,
    trigger text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (session, trigger, task, number)
);
CREATE TABLE earlier_version.logs (
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
CREATE INDEX logs_session ON earlier_version.logs (session, id);
CREATE UNIQUE INDEX logs_number ON earlier_version.logs (session, task, instance, number);
INSERT INTO earlier_version.version (number) VALUES (1);
INSERT INTO earlier_version.rule_sets (id, digest, body) OVERRIDING SYSTEM VALUE VALUES (1, '32d97029d24a1b0ee4d5157e5bb672402c6b01f9b2e2cb701f268f9b0015535c', '{"":{"language":2},"t_subject":{"after":["first","complete"],"run":"survey.Subject"},"t_page":{"after":["t_subject"],"andEvery":"page","run":"survey.Page","withParams":{"api":{"timeout":5}},"retry":{"max":2,"first":"PT10S"}},"t_browser":{"after":["first"],"unless":["embedded"],"run":"survey.Browser","using":"others"},"t_alarm":{"after":["t_page:failed"],"run":"survey.Alarm"},"t_close":{"after":[{"any":["withdrawn",{"atLeast":2,"of":["a","b","c"]}]}],"run":"survey.Close"}}');
INSERT INTO earlier_version.rule_sets (id, digest, body) OVERRIDING SYSTEM VALUE VALUES (2, '92f4d12b0d75b3bf2a877d1b45bacfa1be9620dbc6a37f8305ff1b2e4b0aba31', '{"t_one":{"after":["go"],"run":"one"}}');
INSERT INTO earlier_version.rule_sets (id, digest, body) OVERRIDING SYSTEM VALUE VALUES (3, '7d8e62d42e2ed634be5fdcefd7aa13b28ae80055ee109c6db97e4dd2b04db05d', '{"t_one":{"after":["go"],"run":"two"},"t_last":{"after":["over"],"run":"last"}}');
INSERT INTO earlier_version.rule_sets (id, digest, body) OVERRIDING SYSTEM VALUE VALUES (4, '44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a', '{}');
INSERT INTO earlier_version.sessions (id, uid, rules, manager, firings, pending, finalized, metadata, created_at, modified_at) OVERRIDING SYSTEM VALUE VALUES (1, 'survey', 1, 'default', 16, 4, NULL, '{"study":"1996"}', 1704067200001000, 1704067200038000);
INSERT INTO earlier_version.sessions (id, uid, rules, manager, firings, pending, finalized, metadata, created_at, modified_at) OVERRIDING SYSTEM VALUE VALUES (2, 'unstarted', 1, 'default', 1, 4, NULL, '{}', 1704067200039000, 1704067200042000);
INSERT INTO earlier_version.sessions (id, uid, rules, manager, firings, pending, finalized, metadata, created_at, modified_at) OVERRIDING SYSTEM VALUE VALUES (3, '💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩💩', 1, 'default', 1, 4, NULL, '{}', 1704067200040000, 1704067200043000);
INSERT INTO earlier_version.sessions (id, uid, rules, manager, firings, pending, finalized, metadata, created_at, modified_at) OVERRIDING SYSTEM VALUE VALUES (4, 'abandoned', 1, 'default', 2, 3, NULL, '{}', 1704067200041000, 1704067200045000);
INSERT INTO earlier_version.sessions (id, uid, rules, manager, firings, pending, finalized, metadata, created_at, modified_at) OVERRIDING SYSTEM VALUE VALUES (5, 'final', 3, 'closing', 3, 0, 3, '{}', 1704067200046000, 1704067200050000);
INSERT INTO earlier_version.sessions (id, uid, rules, manager, firings, pending, finalized, metadata, created_at, modified_at) OVERRIDING SYSTEM VALUE VALUES (6, 'without rules', 4, 'default', 1, 0, NULL, '{}', 1704067200051000, 1704067200051000);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 1, 'first', '{"responses":{"age":36}}', 1704067200003000, 0, '', 'page 1', '4f93be2c95af251dc5c7077ac1d22d7099944af55918bfa352d1027faea0a2f4');
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 2, 'complete', '{}', 1704067200004000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 3, 't_subject', '{"id":7}', 1704067200007000, 1, 't_subject#0', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 4, 'page', '{"page":0}', 1704067200008000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 5, 'page', '{"page":1}', 1704067200009000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 6, 'page', '{"page":2}', 1704067200010000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 7, 'page', '{"page":3}', 1704067200011000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 8, 'page', '{"page":4}', 1704067200012000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 9, 'page', '{"page":5}', 1704067200013000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 10, 'page', '{"page":6}', 1704067200014000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 11, 'page', '{"page":7}', 1704067200015000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 12, 't_page', '{"page":0}', 1704067200017000, 2, 't_page#0', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 13, 't_page:failed', '{"instance":"t_page#1","error":{"type":"ValueError","message":"page 1"},"exhausted":false,"lost":false}', 1704067200020000, 2, 't_page#1', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 14, 't_page:failed', '{"instance":"t_page#2","error":{"type":"ValueError","message":"page 2"},"exhausted":false,"lost":false}', 1704067200023000, 2, 't_page#2', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 15, 't_page:failed', '{"instance":"t_page#3","error":{"type":"ValueError","message":"page 3"},"exhausted":false,"lost":false}', 1704067200026000, 2, 't_page#3', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (1, 16, 't_page', '{"page":3}', 1704067200028000, 2, 't_page#3', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (2, 1, 'first', '{"n":1}', 1704067200042000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (3, 1, 'page',  E'{"text":"''\\u0000💩"}', 1704067200043000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (4, 1, 'embedded', '{}', 1704067200044000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (4, 2, 'first', '{}', 1704067200045000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (5, 1, 'go', '{}', 1704067200048000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (5, 2, 't_one', '{"n":1}', 1704067200050000, 1, 't_one#0', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (5, 3, 'over', '{}', 1704067200050000, 0, '', NULL, NULL);
INSERT INTO earlier_version.firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint) OVERRIDING SYSTEM VALUE VALUES (6, 1, 'page', '{}', 1704067200051000, 0, '', 'k', '44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a');
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (1, 'complete', 0, 0, 2, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (1, 'first', 0, 0, 1, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (1, 'page', 0, 0, 11, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (1, 't_alarm', 1, 1, NULL, NULL);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (1, 't_browser', 1, 1, NULL, NULL);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 10, 6, 16, 2);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (1, 't_page:failed', 0, 0, 15, 2);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (1, 't_subject', 1, 0, 3, 1);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (2, 'first', 0, 0, 1, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (2, 't_browser', 1, 1, NULL, NULL);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (2, 't_subject', 1, 1, NULL, NULL);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (3, 'page', 0, 0, 1, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (3, 't_page', 1, 1, NULL, NULL);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (4, 'embedded', 0, 0, 1, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (4, 'first', 0, 0, 2, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (4, 't_browser', 1, 0, NULL, NULL);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (4, 't_subject', 1, 1, NULL, NULL);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (5, 'go', 0, 0, 1, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (5, 'over', 0, 0, 3, 0);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (5, 't_last', 1, 1, NULL, NULL);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (5, 't_one', 1, 0, 2, 1);
INSERT INTO earlier_version.names (session, name, created, unresolved, latest, depth) OVERRIDING SYSTEM VALUE VALUES (6, 'page', 0, 0, 1, 0);
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_alarm', 0, 'scheduled', 1704067200020000, 1704067200020000, 0, 0, 0, 3, 0, 1704067200020000, 1704067230020000, 0, NULL, '', NULL, 0, 0, 0, 2, '{"t_page:failed":13}', '[]', NULL, NULL, NULL, '{}', '1704067200020000 unstarted
1704067200020000 scheduled
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_browser', 0, 'scheduled', 1704067200003000, 1704067200003000, 0, 0, 0, 3, 0, 1704067200003000, 1704067230003000, 0, NULL, '', NULL, 0, 0, 0, 0, '{"first":1}', '[]', NULL, NULL, NULL, '{}', '1704067200003000 unstarted
1704067200003000 scheduled
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 0, 'finished', 1704067200007000, 1704067200017000, 1, 1, 0, 3, 0, 1704067200008000, 1704067230008000, 0, NULL, '', NULL, 0, 0, 0, 1, '{"t_subject":3,"page":4}', '[]', NULL, 12, NULL, '{}', '1704067200007000 unstarted
1704067200008000 scheduled
1704067200016000 running claimed by worker
1704067200017000 finished
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 8, 'scheduled', 1704067200027000, 1704067200027000, 0, 0, 0, 3, 0, 1704067200027000, 1704067230027000, 0, NULL, '', 2, 2, 1, 0, 1, '{"page":6,"t_subject":3}', '[]', NULL, NULL, NULL, '{}', '1704067200027000 scheduled replays t_page#2
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 2, 'replayed', 1704067200010000, 1704067200027000, 1, 1, 0, 3, 0, 1704067200010000, 1704067230010000, 0, NULL, '', NULL, 2, 0, 0, 1, '{"page":6,"t_subject":3}', '[]', NULL, NULL, '{"type":"ValueError","message":"page 2"}', '{"by":"ada"}', '1704067200010000 unstarted
1704067200010000 scheduled
1704067200021000 running claimed by worker
1704067200023000 failed
1704067200027000 replayed
', 2, 40, 40, '{"40":1,"30":1}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 4, 'running', 1704067200012000, 1704067200029000, 1, 1, 0, 3, 0, 1704067200012000, 1704067230012000, 0, 1704067260029000, 'worker', NULL, 4, 0, 0, 1, '{"page":8,"t_subject":3}', '[]', NULL, NULL, NULL, '{}', '1704067200012000 unstarted
1704067200012000 scheduled
1704067200029000 running claimed by worker
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 5, 'running', 1704067200013000, 1704067200031000, 1, 1, 0, 3, 0, 1704067200013000, 1704067230013000, 0, 1704067260030000, 'another', NULL, 5, 0, 0, 1, '{"page":9,"t_subject":3}', '[]', NULL, NULL, NULL, '{}', '1704067200013000 unstarted
1704067200013000 scheduled
1704067200030000 running claimed by another
', 1, 30, 30, '{"30":1}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 9, 'scheduled', 1704067200033000, 1704067200033000, 0, 0, 0, 3, 0, 1704070800033000, 1704070800033000, 0, NULL, '', 7, 7, 1, 1, 1, '{"page":11,"t_subject":3}', '[]', NULL, NULL, NULL, '{}', '1704067200033000 scheduled replays t_page#7
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 7, 'replayed', 1704067200015000, 1704067200033000, 1, 1, 0, 3, 0, 1704067200015000, 1704067230015000, 0, NULL, '', NULL, 7, 0, 0, 1, '{"page":11,"t_subject":3}', '[]', NULL, NULL, '"later"', '{}', '1704067200015000 unstarted
1704067200015000 scheduled
1704067200032000 running claimed by worker
1704067200033000 failed
1704067200033000 replayed by its own retry
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 1, 'failed', 1704067200009000, 1704067200038000, 1, 1, 0, 3, 0, 1704067200009000, 1704067230009000, 0, NULL, '', NULL, 1, 0, 0, 1, '{"page":5,"t_subject":3}', '[]', NULL, NULL, '{"type":"ValueError","message":"page 1"}', '{"ticket":4}', '1704067200009000 unstarted
1704067200009000 scheduled
1704067200018000 running claimed by worker
1704067200020000 failed
', 2, 40, 30, '{"40":1,"30":1}', 0, 0, '[1]', '[{"outcome":"resolved","by":"bob","records":[1],"at":1704067200035000,"level":40}]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 3, 'skipped', 1704067200011000, 1704067200037000, 1, 1, 0, 3, 0, 1704067200011000, 1704067230011000, 0, NULL, '', NULL, 3, 0, 0, 1, '{"page":7,"t_subject":3}', '[]', NULL, 16, '{"type":"ValueError","message":"page 3"}', '{}', '1704067200011000 unstarted
1704067200011000 scheduled
1704067200024000 running claimed by worker
1704067200026000 failed
1704067200028000 skipped
', 2, 40, 40, '{"40":1,"30":1}', 0, 0, '[]', '[{"outcome":"resolved","by":"bob","through":2,"at":1704067200036000,"level":40},{"outcome":"reopened","by":"ada","at":1704067200037000,"level":0}]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_page', 6, 'scheduled', 1704067200014000, 1704067200014000, 0, 0, 0, 3, 0, 1704067200014000, 1704067230014000, 0, NULL, '', NULL, 6, 0, 0, 1, '{"page":10,"t_subject":3}', '[]', NULL, NULL, NULL, '{}', '1704067200014000 unstarted
1704067200014000 scheduled
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (1, 't_subject', 0, 'finished', 1704067200003000, 1704067200034000, 1, 1, 0, 3, 0, 1704067200004000, 1704067230004000, 0, NULL, '', NULL, 0, 0, 0, 0, '{"first":1,"complete":2}', '[]', NULL, 3, NULL, '{}', '1704067200003000 unstarted
1704067200004000 scheduled
1704067200005000 running claimed by worker
1704067200007000 finished
', 2, 40, 0, '{"20":1,"40":1}', 0, 2, '[]', '[{"outcome":"resolved","by":"ada","note":"seen","through":2,"at":1704067200034000,"level":40}]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (2, 't_browser', 0, 'scheduled', 1704067200042000, 1704067200042000, 0, 0, 0, 3, 0, 1704067200042000, 1704067230042000, 0, NULL, '', NULL, 0, 0, 0, 0, '{"first":1}', '[]', NULL, NULL, NULL, '{}', '1704067200042000 unstarted
1704067200042000 scheduled
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (2, 't_subject', 0, 'unstarted', 1704067200042000, 1704067200042000, 0, 0, 0, 3, 0, 0, 0, 0, NULL, '', NULL, 0, 0, 0, 0, '{"first":1}', '[]', NULL, NULL, NULL, '{}', '1704067200042000 unstarted
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (3, 't_page', 0, 'unstarted', 1704067200043000, 1704067200043000, 0, 0, 0, 3, 0, 0, 0, 0, NULL, '', NULL, 0, 0, 0, 0, '{"page":1}', '[]', NULL, NULL, NULL, '{}', '1704067200043000 unstarted
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (4, 't_browser', 0, 'abandoned', 1704067200044000, 1704067200044000, 0, 0, 0, 3, 0, 0, 0, 0, NULL, '', NULL, 0, 0, 0, 0, '{}', '["embedded"]', NULL, NULL, NULL, '{}', '1704067200044000 unstarted
1704067200044000 abandoned
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (4, 't_subject', 0, 'unstarted', 1704067200045000, 1704067200045000, 0, 0, 0, 3, 0, 0, 0, 0, NULL, '', NULL, 0, 0, 0, 0, '{"first":2}', '[]', NULL, NULL, NULL, '{}', '1704067200045000 unstarted
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (5, 't_last', 0, 'scheduled', 1704067200050000, 1704067200050000, 0, 0, 0, 3, 0, 1704067200050000, 1704067230050000, 0, NULL, '', NULL, 0, 0, 0, 0, '{"over":3}', '[]', NULL, NULL, NULL, '{}', '1704067200050000 unstarted
1704067200050000 scheduled
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.instances (session, task, number, status, created_at, modified_at, fence, attempt, crashes, crash_budget, given_back, run_at, dispatch_after, handovers, lease_until, owner, parent, root, depth, retries, cascade_depth, taken, vetoes, kwargs, result, error, metadata, history, log_count, log_level, log_unresolved, log_counts, log_dropped, log_resolved, log_chosen, log_audit) OVERRIDING SYSTEM VALUE VALUES (5, 't_one', 0, 'finished', 1704067200048000, 1704067200050000, 1, 1, 0, 3, 0, 1704067200048000, 1704067230048000, 0, NULL, '', NULL, 0, 0, 0, 0, '{"go":1}', '[]', NULL, 2, NULL, '{}', '1704067200048000 unstarted
1704067200048000 scheduled
1704067200049000 running claimed by worker
1704067200050000 finished
', 0, 0, 0, '{}', 0, 0, '[]', '[]');
INSERT INTO earlier_version.waiting (session, trigger, task, number) OVERRIDING SYSTEM VALUE VALUES (2, 'complete', 't_subject', 0);
INSERT INTO earlier_version.waiting (session, trigger, task, number) OVERRIDING SYSTEM VALUE VALUES (3, 't_subject', 't_page', 0);
INSERT INTO earlier_version.waiting (session, trigger, task, number) OVERRIDING SYSTEM VALUE VALUES (4, 'complete', 't_subject', 0);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (1, 1, 't_subject', 0, 1, 1, 1, 1, 1700000000000000, 20, 'survey', 'Seen.', 'Said.', '{}', NULL, 'survey.py', 7, 'f', '[]', '9c89c2670daad5f0', false, true);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (2, 1, 't_subject', 0, 2, 1, 1, 2, 1700000000000000, 40, 'survey', 'Odd.', 'Said.', '{"age":36}', NULL, 'survey.py', 7, 'f', '[]', '689b4be266dee0c6', false, true);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (3, 1, 't_page', 1, 1, 1, 1, 1, 1700000000000000, 40, 'survey', 'Page 1.', 'Said.', '{}', NULL, 'survey.py', 7, 'f', '[]', '689b4be266dee0c6', false, true);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (4, 1, 't_page', 1, 2, 1, 1, 2, 1700000000000000, 30, 'survey', 'Again.', 'Said.', '{}', NULL, 'survey.py', 7, 'f', '[]', '7bcc0bb5bbe044fc', false, true);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (5, 1, 't_page', 2, 1, 1, 1, 1, 1700000000000000, 40, 'survey', 'Page 2.', 'Said.', '{}', NULL, 'survey.py', 7, 'f', '[]', '689b4be266dee0c6', false, true);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (6, 1, 't_page', 2, 2, 1, 1, 2, 1700000000000000, 30, 'survey', 'Again.', 'Said.', '{}', NULL, 'survey.py', 7, 'f', '[]', '7bcc0bb5bbe044fc', false, true);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (7, 1, 't_page', 3, 1, 1, 1, 1, 1700000000000000, 40, 'survey', 'Page 3.', 'Said.', '{}', NULL, 'survey.py', 7, 'f', '[]', '689b4be266dee0c6', false, true);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (8, 1, 't_page', 3, 2, 1, 1, 2, 1700000000000000, 30, 'survey', 'Again.', 'Said.', '{}', NULL, 'survey.py', 7, 'f', '[]', '7bcc0bb5bbe044fc', false, true);
INSERT INTO earlier_version.logs (id, session, task, instance, number, fence, attempt, seq, at, level, logger, message, template, context, exception, pathname, lineno, function, truncated, fingerprint, late, counts) OVERRIDING SYSTEM VALUE VALUES (9, 1, 't_page', 5, 1, 1, 1, 1, 1700000000000000, 30, 'survey', 'Running.', 'Said.', '{"page":5}', NULL, 'survey.py', 7, 'f', '[]', '7bcc0bb5bbe044fc', false, true);
SELECT setval(pg_get_serial_sequence('earlier_version.rule_sets', 'id'), (SELECT max(id) FROM earlier_version.rule_sets));
SELECT setval('earlier_version.session_numbers', (SELECT max(id) FROM earlier_version.sessions));
SELECT setval(pg_get_serial_sequence('earlier_version.logs', 'id'), (SELECT max(id) FROM earlier_version.logs));
