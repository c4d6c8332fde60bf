-- Every statement that PostgresStorage runs, by name. Several statements are sent and answered together, so no
-- statement needs a value that another one returns.
-- Lists of columns, such as `{instance_columns}`, and the numbers of named parameters, such as `:session`, are filled
-- in from triggers.core.columns. `{session_ref}` is the id of a session: $1, or found by the UID $1. `{session}` is
-- always found by the UID $1.
-- Rows that a list or other rows name are fetched one by one: LATERAL (… OFFSET 0) leaves the planner no other way. A
-- join would let it read all rows of a session. It does so when the tables have no statistics, or when it uses a plan
-- that it made while they were empty.

-- name: begin
-- The level does not depend on the server's defaults.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE

-- name: begin_reading
-- All statements see one state. It works for a role that may only read, and on a replica.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: commit
COMMIT

-- name: rollback
ROLLBACK

-- name: lock_timeout
-- How long to wait for a lock, in milliseconds, until the end of the transaction.
SELECT set_config('lock_timeout', $1, true)

-- name: session_settings
-- The settings of this storage, for the transaction (if $5) or for the session. Every statement is meant to use an
-- index, also if the statistics are outdated, as in a new table. Plans are made once.
SELECT set_config('lock_timeout', $1, $5), set_config('statement_timeout', $2, $5),
    set_config('idle_in_transaction_session_timeout', $3, $5), set_config('search_path', 'pg_catalog', $5),
    set_config('enable_seqscan', 'off', $5), set_config('jit', 'off', $5), set_config('plan_cache_mode', $4, $5)

-- name: index_order
-- For queries that read an index in its order and stop early: in a generic plan, the planner cannot know how early.
SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)

-- name: announce
-- Tell the processes that listen, in a transaction of its own, that work is due in this schema.
SELECT pg_notify('triggers', $1)

-- name: server
-- The properties of a database that must be checked.
SELECT current_setting('server_version_num')::integer / 10000, current_setting('server_encoding'),
    current_setting('fsync'), current_setting('synchronous_commit')

-- name: has_schema
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)

-- name: has_version
-- Whether the schema is one of Triggers, by what is committed: to_regclass() can miss a new table.
SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'version'
    AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1))

-- name: version
SELECT number FROM {schema}.version

-- name: version_check
-- Fails unless the schema has the version that this process requires. Every transaction begins with this statement, so
-- it holds a lock on the table until its end.
SELECT {schema}.guard((SELECT number FROM {schema}.version) IS NOT DISTINCT FROM $1)

-- name: version_lock
-- Wait for the transactions that have checked the old version. Transactions that begin now wait for the end of the
-- migration and then read the new version. They have no other lock yet, so there is no deadlock.
LOCK TABLE {schema}.version IN ACCESS EXCLUSIVE MODE

-- name: version_set
INSERT INTO {schema}.version (number) VALUES ($1) ON CONFLICT (one) DO UPDATE SET number = excluded.number

-- name: migration_lock
-- One process migrates a schema; the others wait.
SELECT pg_advisory_xact_lock(hashtextextended({migration_lock}, 0))

-- name: no_statement_timeout
-- For statements that can read a whole table.
SELECT set_config('statement_timeout', '0', true)

-- name: incarnation
SELECT mark FROM {schema}.incarnation

-- name: incarnate
INSERT INTO {schema}.incarnation DEFAULT VALUES ON CONFLICT DO NOTHING

-- name: transaction_status
-- Whether a transaction was committed or rolled back, or is in progress.
SELECT pg_xact_status($1::text::xid8)

-- name: terminate
-- End the connection that still has this transaction open and whose client is lost. A connection that has committed and
-- waits for a synchronous replica is not ended.
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND backend_xid::text::bigint = $1::text::bigint & 4294967295
  AND wait_event IS DISTINCT FROM 'SyncRep'

-- name: evidence
-- Whether a session contains what a commit would have written: its first firing ($2, made at $3), or a head ($4) or an
-- instance ($6, $7) that was last changed at exactly that time ($5, $8); whether the instance's history, which only
-- grows, begins with $9; and whether it has a timer ($10) with a number ($11) and time ($12), or never had so many.
SELECT EXISTS (SELECT FROM {schema}.firings WHERE session = $1 AND number = $2 AND at = $3),
    EXISTS (SELECT FROM {schema}.sessions WHERE uid = $4 AND modified_at = $5)
    OR EXISTS (SELECT FROM {schema}.instances WHERE session = $1 AND task = $6 AND number = $7 AND modified_at = $8),
    (SELECT starts_with(history, $9) FROM {schema}.instances WHERE session = $1 AND task = $6 AND number = $7),
    CASE
        WHEN $11::bigint IS NULL THEN NULL
        WHEN EXISTS (SELECT FROM {schema}.timers WHERE session = $1 AND name = $10 AND number = $11 AND at = $12) THEN true
        WHEN NOT EXISTS (SELECT FROM {schema}.sessions WHERE id = $1 AND timer_count >= $11) THEN false
    END

-- name: clock
SELECT {schema}.clock()

-- name: head_locked
-- The head of a session, locked when no other decision about it is running; with the time, the transaction's number,
-- and an id for a new session. The head is in a subquery, so that the time is read after the lock was acquired.
SELECT {schema}.clock(), pg_current_xact_id()::text,
    CASE WHEN found.id IS NULL THEN nextval({session_numbers}) END, found.*
FROM (SELECT) AS always LEFT JOIN (
    SELECT id, {head_columns}
    FROM {schema}.sessions WHERE uid = $1 FOR NO KEY UPDATE
) AS found ON true

-- name: head
-- The same without the lock, for a decision that changes a single instance.
SELECT {schema}.clock(), pg_current_xact_id()::text, NULL::bigint, found.*
FROM (SELECT) AS always LEFT JOIN (
    SELECT id, {head_columns}
    FROM {schema}.sessions WHERE uid = $1
) AS found ON true

-- name: head_unlocked
-- The same for a transaction that may only read, which gets no number.
SELECT {schema}.clock(), '', NULL::bigint, found.*
FROM (SELECT) AS always LEFT JOIN (
    SELECT id, {head_columns}
    FROM {schema}.sessions WHERE uid = $1
) AS found ON true

-- name: session
-- The head of a session, for readers.
SELECT {schema}.clock(), id, {head_columns}
FROM {schema}.sessions WHERE uid = $1

-- name: sessions
-- A page of heads.
SELECT {schema}.clock(), id, {head_columns}, uid
FROM {schema}.sessions WHERE uid > $1 ORDER BY uid LIMIT $2

-- name: session_insert
-- If two transactions create the same session, the second one waits for the first, fails here, and is run again.
INSERT INTO {schema}.sessions (
    uid, manager, firings, pending, finalized, metadata, created_at, modified_at, next_timer_at, timer_count, id, rules
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, (SELECT id FROM {schema}.rule_sets WHERE digest = $12))

-- name: session_update
UPDATE {schema}.sessions SET manager = $1, firings = $2, pending = $3, finalized = $4, metadata = $5, modified_at = $6,
    next_timer_at = $7, timer_count = $8
WHERE id = $9

-- name: session_rules
-- Point a session at another rule set.
UPDATE {schema}.sessions SET rules = (SELECT id FROM {schema}.rule_sets WHERE digest = $1) WHERE id = $2

-- name: rules
SELECT rule_sets.id, rule_sets.body FROM unnest($1::bigint[]) AS wanted (id), LATERAL (
    SELECT id, body FROM {schema}.rule_sets WHERE id = wanted.id OFFSET 0
) AS rule_sets

-- name: rules_insert
-- Store a rule set unless it is stored already.
INSERT INTO {schema}.rule_sets (digest, body) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING

-- name: keyed
-- The firing that used an idempotency key before.
SELECT {firing_columns}
FROM {schema}.firings WHERE session = {session_ref} AND trigger = $2 AND key = $3

-- name: names
-- The counters of tasks and the latest firings of triggers.
SELECT names.* FROM unnest($2::text[]) AS wanted (name), LATERAL (
    SELECT name, created, unresolved, latest, depth FROM {schema}.names
    WHERE session = {session_ref} AND name = wanted.name OFFSET 0
) AS names

-- name: counters_all
SELECT name, created, unresolved FROM {schema}.names WHERE session = {session_ref} AND created > 0

-- name: counter_upsert
INSERT INTO {schema}.names (session, name, created, unresolved) VALUES ($1, $2, $3, $4)
ON CONFLICT (session, name) DO UPDATE SET created = excluded.created, unresolved = excluded.unresolved

-- name: latest_upsert
INSERT INTO {schema}.names (session, name, latest, depth) VALUES ($1, $2, $3, $4)
ON CONFLICT (session, name) DO UPDATE SET latest = excluded.latest, depth = excluded.depth

-- name: waiting
-- The unstarted instances that lack a trigger. Only a transaction that holds the lock of the session changes them.
SELECT {instance_columns} FROM {schema}.waiting, LATERAL (
    SELECT * FROM {schema}.instances
    WHERE session = {session_ref} AND task = waiting.task AND number = waiting.number OFFSET 0
) AS instances
WHERE waiting.session = {session_ref} AND waiting.trigger = $2 ORDER BY waiting.task, waiting.number

-- name: waiting_insert
INSERT INTO {schema}.waiting (session, task, number, trigger) SELECT $1, $2, $3, unnest($4::text[])
ON CONFLICT DO NOTHING

-- name: waiting_delete
-- One trigger at a time: with a list, the planner may look for it among all that the session waits for.
DELETE FROM {schema}.waiting WHERE session = $1 AND task = $2 AND number = $3 AND trigger = $4

-- name: history
-- Every firing of some triggers, without payloads, for tasks that catch up.
SELECT {firing_columns_without_kwargs} FROM {schema}.firings
WHERE session = {session_ref} AND trigger = ANY($2::text[]) ORDER BY number

-- name: payloads
-- The payloads of the firings that an instance has taken. The instance is locked by instance_locked.
SELECT firings.number, firings.kwargs
FROM {schema}.instances, json_each_text(instances.taken::json) AS took, LATERAL (
    SELECT number, kwargs FROM {schema}.firings WHERE session = {session_ref} AND number = took.value::bigint OFFSET 0
) AS firings
WHERE instances.session = {session_ref} AND instances.task = $2 AND instances.number = $3

-- name: firing_insert
INSERT INTO {schema}.firings (session, {columns}) VALUES (:session, {values})

-- name: instance_locked
-- An instance, locked when no other transaction changes it.
SELECT {instance_columns} FROM {schema}.instances
WHERE session = {session_ref} AND task = $2 AND number = $3 FOR NO KEY UPDATE

-- name: unstarted
-- Every unstarted instance of some tasks, for a decision about new rules.
SELECT {instance_columns} FROM unnest($2::text[]) AS wanted (task), LATERAL (
    SELECT * FROM {schema}.instances WHERE session = {session_ref} AND task = wanted.task AND status = 'unstarted' OFFSET 0
) AS instances
ORDER BY created_at, task, number

-- name: instance_insert
INSERT INTO {schema}.instances (session, {columns}) VALUES (:ref, {values})

-- name: instance_take
-- Store that an unstarted instance has received triggers, which can schedule or abandon it.
WITH changed AS (
    UPDATE {schema}.instances SET {assignments}
    WHERE session = :ref AND task = :task AND number = :number AND status = 'unstarted' RETURNING 1
) SELECT {schema}.guard(count(*) = 1) FROM changed

-- name: instance_move
-- Store everything of an instance that can change, if its guard holds.
WITH changed AS (
    UPDATE {schema}.instances SET {assignments}
    WHERE session = :ref AND task = :task AND number = :number AND status = :guard_status AND fence = :guard_fence
        AND (:guard_lease_until::bigint IS NULL OR lease_until = :guard_lease_until::bigint) RETURNING 1
) SELECT {schema}.guard(count(*) = 1) FROM changed

-- name: flagged
-- Finished instances that still need a review.
SELECT task, number FROM {schema}.instances
WHERE session = {session_ref} AND log_unresolved > 0 AND log_unresolved >= $2 AND status = 'finished' LIMIT $3

-- name: timers
-- Timers of a session by their time and number, those after a time and number.
SELECT {timer_columns} FROM {schema}.timers
WHERE session = {session_ref} AND (at, number) > ($2::bigint, $3::bigint) ORDER BY at, number LIMIT $4

-- name: timers_named
SELECT timers.* FROM unnest($2::text[]) AS wanted (name), LATERAL (
    SELECT {timer_columns} FROM {schema}.timers WHERE session = {session_ref} AND name = wanted.name OFFSET 0
) AS timers
ORDER BY at, number

-- name: timer_upsert
INSERT INTO {schema}.timers (session, {timer_columns}) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (session, name) DO UPDATE SET at = excluded.at, number = excluded.number, body = excluded.body

-- name: timer_delete
DELETE FROM {schema}.timers WHERE session = $1 AND name = $2

-- name: timed_sessions
-- Sessions that have timers, the first to elapse first: the first of each manager, and of these the first.
SELECT sessions.* FROM unnest($1::text[]) AS wanted (manager), LATERAL (
    SELECT uid, next_timer_at FROM {schema}.sessions
    WHERE manager = wanted.manager AND next_timer_at IS NOT NULL ORDER BY next_timer_at LIMIT $2
) AS sessions
ORDER BY next_timer_at, uid LIMIT $2

-- name: renew
-- Heartbeats. Each is valid only if the fence is that of the claim. They wait for no lock: a claim whose row another
-- transaction has locked still holds, and the next heartbeat extends it. Returns the claims that hold.
WITH beats AS MATERIALIZED (
    SELECT sessions.id AS session, beat.*
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS beat (uid, task, number, fence), LATERAL (
        SELECT id FROM {schema}.sessions WHERE uid = beat.uid OFFSET 0
    ) AS sessions
    ORDER BY sessions.id, beat.task, beat.number
), held AS MATERIALIZED (
    SELECT beats.* FROM beats, LATERAL (
        SELECT status, fence FROM {schema}.instances
        WHERE session = beats.session AND task = beats.task AND number = beats.number OFFSET 0
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS instances
    WHERE instances.status = 'running' AND instances.fence = beats.fence
), renewed AS (
    UPDATE {schema}.instances SET lease_until = (SELECT {schema}.clock()) + $5::bigint FROM held
    WHERE instances.session = held.session AND instances.task = held.task AND instances.number = held.number
)
SELECT beats.uid, beats.task, beats.number, beats.fence FROM beats, LATERAL (
    SELECT status, fence FROM {schema}.instances
    WHERE session = beats.session AND task = beats.task AND number = beats.number OFFSET 0
) AS instances
WHERE instances.status = 'running' AND instances.fence = beats.fence

-- name: due
-- Take instances that are due and were not dispatched recently. Those that another sweep is taking now are skipped.
WITH moment AS MATERIALIZED (
    SELECT {schema}.clock() AS now
), found AS MATERIALIZED (
    SELECT session, task, number, dispatch_after FROM {schema}.instances
    WHERE status = 'scheduled' AND dispatch_after <= (SELECT now FROM moment) + $1::bigint
        AND run_at <= (SELECT now FROM moment)
    ORDER BY dispatch_after LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
    UPDATE {schema}.instances SET handovers = handovers + 1,
        dispatch_after = (SELECT now FROM moment) + $3::bigint * least(2 ^ least(handovers, 30), $4::bigint)::bigint
    FROM found
    WHERE instances.session = found.session AND instances.task = found.task AND instances.number = found.number
    RETURNING found.session, found.task, found.number, found.dispatch_after
)
SELECT sessions.rules, sessions.uid, taken.task, taken.number
FROM taken JOIN {schema}.sessions ON sessions.id = taken.session ORDER BY taken.dispatch_after

-- name: expired
SELECT sessions.uid, instances.task, instances.number, instances.fence, sessions.manager
FROM {schema}.instances JOIN {schema}.sessions ON sessions.id = instances.session
WHERE instances.status = 'running' AND instances.lease_until < (SELECT {schema}.clock())
ORDER BY instances.lease_until LIMIT $1

-- name: backlog
-- How many instances are scheduled or running, counted in the two small indexes.
SELECT
    (SELECT count(*) FROM {schema}.instances WHERE status = 'scheduled' AND run_at <= (SELECT {schema}.clock())),
    (SELECT count(*) FROM {schema}.instances WHERE status = 'scheduled' AND run_at > (SELECT {schema}.clock())),
    (SELECT count(*) FROM {schema}.instances WHERE status = 'running')

-- name: next_at
-- The first entries of the two small indexes.
SELECT least(
    (SELECT dispatch_after FROM {schema}.instances WHERE status = 'scheduled' ORDER BY dispatch_after LIMIT 1),
    (SELECT lease_until FROM {schema}.instances WHERE status = 'running' ORDER BY lease_until LIMIT 1))

-- name: instance
SELECT {instance_columns} FROM {schema}.instances WHERE session = {session_ref} AND task = $2 AND number = $3

-- name: instances
-- A page of instances in the order of task and number. A parameter that is NULL does not filter.
SELECT {instance_columns} FROM {schema}.instances
WHERE session = {session} AND (task, number) > ($2, $3::bigint)
  AND ($4::text IS NULL OR task = $4::text)
  AND ($5::text[] IS NULL OR status = ANY($5::text[]))
ORDER BY task, number LIMIT $6

-- name: instances_flagged
-- A page of those with unresolved records at or above a level.
SELECT {instance_columns} FROM {schema}.instances
WHERE session = {session} AND (task, number) > ($2, $3::bigint) AND log_unresolved > 0 AND log_unresolved >= $7
  AND ($4::text IS NULL OR task = $4::text)
  AND ($5::text[] IS NULL OR status = ANY($5::text[]))
  AND status NOT IN ({settled})
ORDER BY task, number LIMIT $6

-- name: counters
SELECT name, created, unresolved FROM {schema}.names WHERE session = {session} AND created > 0

-- name: firings
SELECT {firing_columns} FROM {schema}.firings
WHERE session = {session} AND number > $2 ORDER BY number LIMIT $3

-- name: firings_numbered
SELECT {firing_columns} FROM unnest($2::bigint[]) AS wanted (number), LATERAL (
    SELECT * FROM {schema}.firings WHERE session = {session} AND number = wanted.number OFFSET 0
) AS firings
ORDER BY number

-- name: latest
-- The latest firings of some triggers.
SELECT {firing_columns}
FROM unnest($2::text[]) AS wanted (name), LATERAL (
    SELECT session, latest FROM {schema}.names WHERE session = {session} AND name = wanted.name OFFSET 0
) AS names, LATERAL (
    SELECT * FROM {schema}.firings WHERE session = names.session AND number = names.latest OFFSET 0
) AS firings

-- name: log_lock
-- Records of one session are committed in the order of their ids: only one transaction at a time stores some.
SELECT pg_advisory_xact_lock(hashtextextended({log_lock}, $1))

-- name: log_insert
INSERT INTO {schema}.logs (session, task, instance, {columns}) VALUES (:session, :task, :instance, {values})

-- name: log_level
-- The highest level, from a threshold on, among the records that a review does not cover.
SELECT coalesce(max(level), 0) FROM {schema}.logs
WHERE session = {session_ref} AND task = $2 AND instance = $3 AND counts AND number > $4 AND level >= $5
  AND number <> ALL($6::bigint[])

-- name: logs
-- A page of records, the first or (DESC) the last ones. A parameter that is NULL does not filter.
SELECT {log_columns} FROM {schema}.logs, LATERAL (
    SELECT * FROM {schema}.instances
    WHERE session = logs.session AND task = logs.task AND number = logs.instance OFFSET 0
) AS instances
WHERE logs.session = {session} AND logs.id > $2 AND logs.level >= $3
  AND ($4::text = '' OR position(lower($4::text COLLATE "C") IN lower(logs.message COLLATE "C")) > 0)
  AND ($5::boolean IS NULL OR {open} = $5::boolean)
  AND ($6::text IS NULL OR logs.fingerprint = $6::text)
ORDER BY logs.id {order} LIMIT $7

-- name: logs_of_instance
-- The same for one instance, whose records have ids in the order of their numbers.
SELECT {log_columns} FROM {schema}.logs, LATERAL (
    SELECT * FROM {schema}.instances
    WHERE session = logs.session AND task = logs.task AND number = logs.instance OFFSET 0
) AS instances
WHERE logs.session = {session} AND logs.id > $2 AND logs.level >= $3
  AND ($4::text = '' OR position(lower($4::text COLLATE "C") IN lower(logs.message COLLATE "C")) > 0)
  AND ($5::boolean IS NULL OR {open} = $5::boolean)
  AND ($6::text IS NULL OR logs.fingerprint = $6::text)
  AND logs.task = $8 AND logs.instance = $9
ORDER BY logs.number {order} LIMIT $7

-- name: purge_find
-- A batch of records that may be deleted.
SELECT logs.id FROM {schema}.logs, LATERAL (
    SELECT * FROM {schema}.instances
    WHERE session = logs.session AND task = logs.task AND number = logs.instance OFFSET 0
) AS instances
WHERE logs.id > $5 AND {purgeable}
ORDER BY logs.id LIMIT $6

-- name: purge_check
-- Those of the given records that may still be deleted, with their instances locked against reviews.
SELECT logs.id, logs.exception FROM {schema}.logs, LATERAL (
    SELECT * FROM {schema}.instances
    WHERE session = logs.session AND task = logs.task AND number = logs.instance OFFSET 0
) AS instances
WHERE logs.id = ANY($5::bigint[]) AND {purgeable}
ORDER BY instances.session, instances.task, instances.number FOR NO KEY UPDATE OF instances

-- name: purge_records
DELETE FROM {schema}.logs WHERE id = ANY($1::bigint[])

-- name: purge_context
-- The record keeps its message.
UPDATE {schema}.logs SET context = '{}', exception = $2 WHERE id = $1
