-- Every statement that SqliteStorage runs, by name. Lists are passed as JSON, so that the text never varies.
-- Lists of columns, such as `{instance_columns}`, and the numbers of named parameters, such as `:session`, are filled
-- in from triggers.core.columns.

-- name: session
-- The head of a session.
SELECT id, {head_columns} FROM sessions WHERE uid = ?

-- name: sessions
-- A page of heads.
SELECT uid, id, {head_columns} FROM sessions WHERE uid > ? ORDER BY uid LIMIT ?

-- name: session_insert
INSERT INTO sessions (uid, {head_columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: session_update
UPDATE sessions SET manager = ?, firings = ?, pending = ?, finalized = ?, metadata = ?, modified_at = ?,
    next_timer_at = ?, timer_count = ?
WHERE id = ?

-- name: session_rules
-- Point a session at another rule set.
UPDATE sessions SET rules = ? WHERE id = ?

-- name: rules
SELECT body FROM rule_sets WHERE id = ?

-- name: rules_insert
-- Store a rule set unless it is stored already.
INSERT INTO rule_sets (digest, body) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING

-- name: rules_id
SELECT id FROM rule_sets WHERE digest = ?

-- name: keyed
-- The firing that used an idempotency key before.
SELECT {firing_columns}
FROM firings INDEXED BY firings_key WHERE session = ? AND trigger = ? AND key = ?

-- name: names
-- The counters of tasks and the latest firings of triggers.
SELECT name, created, unresolved, latest, depth FROM names
WHERE session = ? AND name IN (SELECT value FROM json_each(?))

-- name: name
-- The same for a single name, which is the usual case, in half the time.
SELECT name, created, unresolved, latest, depth FROM names WHERE session = ? AND name = ?

-- name: counters_all
SELECT name, created, unresolved FROM names WHERE session = ? AND created > 0

-- name: counter_upsert
INSERT INTO names (session, name, created, unresolved) VALUES (?, ?, ?, ?)
ON CONFLICT (session, name) DO UPDATE SET created = excluded.created, unresolved = excluded.unresolved

-- name: latest_upsert
INSERT INTO names (session, name, latest, depth) VALUES (?, ?, ?, ?)
ON CONFLICT (session, name) DO UPDATE SET latest = excluded.latest, depth = excluded.depth

-- name: waiting
-- The unstarted instances that lack a trigger, in the order in which they were created.
SELECT {instance_columns} FROM waiting JOIN instances ON instances.id = waiting.instance
WHERE waiting.session = ? AND waiting.trigger = ? ORDER BY waiting.instance

-- name: waiting_insert
INSERT OR IGNORE INTO waiting (session, trigger, instance) VALUES (?, ?, ?)

-- name: waiting_delete
DELETE FROM waiting WHERE session = ? AND trigger = ? AND instance = ?

-- name: latest
-- The latest firings of some triggers.
SELECT {firing_columns}
FROM names JOIN firings ON firings.session = names.session AND firings.number = names.latest
WHERE names.session = ? AND names.name IN (SELECT value FROM json_each(?))

-- name: history
-- Every firing of some triggers, without payloads, for tasks that catch up.
SELECT {firing_columns_without_kwargs} FROM firings
WHERE session = ? AND trigger IN (SELECT value FROM json_each(?)) ORDER BY number

-- name: payloads
SELECT number, kwargs FROM firings WHERE session = ? AND number IN (SELECT value FROM json_each(?))

-- name: firings
SELECT {firing_columns} FROM firings
WHERE session = ? AND number > ? ORDER BY number LIMIT ?

-- name: firings_numbered
SELECT {firing_columns} FROM firings
WHERE session = ? AND number IN (SELECT value FROM json_each(?)) ORDER BY number

-- name: firing_insert
INSERT INTO firings (session, {columns}) VALUES (:session, {values})

-- name: instance
SELECT {instance_columns} FROM instances WHERE session = ? AND task = ? AND number = ?

-- name: unstarted
-- Every unstarted instance of some tasks, for a decision about new rules.
SELECT {instance_columns} FROM instances INDEXED BY instances_name
WHERE session = ? AND status = 'unstarted' AND task IN (SELECT value FROM json_each(?)) ORDER BY id

-- name: instance_insert
INSERT INTO instances (session, {columns}) VALUES (:session, {values})

-- name: instance_take
-- Store that an unstarted instance has received triggers, which can schedule or abandon it.
UPDATE instances SET {assignments} WHERE id = :ref AND status = 'unstarted'

-- name: instance_move
-- Store everything of an instance that can change, if its guard holds.
UPDATE instances SET {assignments}
WHERE id = :ref AND status = :guard_status AND fence = :guard_fence
  AND (:guard_lease_until IS NULL OR lease_until = :guard_lease_until)

-- name: flagged
-- Finished instances that still need a review.
SELECT task, number FROM instances
WHERE session = ? AND log_unresolved > 0 AND log_unresolved >= ? AND status = 'finished' LIMIT ?

-- name: instances
-- A page of instances in the order of task and number. A parameter that is NULL does not filter.
SELECT {instance_columns} FROM instances
WHERE session = ?1 AND (task, number) > (?2, ?3)
  AND (?4 IS NULL OR task = ?4)
  AND (?5 IS NULL OR status IN (SELECT value FROM json_each(?5)))
ORDER BY task, number LIMIT ?6

-- name: instances_flagged
-- A page of those with unresolved records at or above a level.
SELECT {instance_columns} FROM instances INDEXED BY instances_flagged
WHERE session = ?1 AND (task, number) > (?2, ?3) AND log_unresolved > 0 AND log_unresolved >= ?7
  AND (?4 IS NULL OR task = ?4)
  AND (?5 IS NULL OR status IN (SELECT value FROM json_each(?5)))
  AND status NOT IN ({settled})
ORDER BY task, number LIMIT ?6

-- name: renew
-- A heartbeat. It is valid only if the fence is that of the claim.
UPDATE instances SET lease_until = ?
WHERE session = (SELECT id FROM sessions WHERE uid = ?) AND task = ? AND number = ?
  AND status = 'running' AND fence = ?

-- name: due
-- Instances that are due and were not dispatched recently.
SELECT instances.id, sessions.uid, instances.task, instances.number, sessions.rules, instances.handovers
FROM instances INDEXED BY instances_due JOIN sessions ON sessions.id = instances.session
WHERE instances.status = 'scheduled' AND instances.dispatch_after <= ?1 AND instances.run_at <= ?2
ORDER BY instances.dispatch_after LIMIT ?3

-- name: dispatched
UPDATE instances SET dispatch_after = ?, handovers = ? WHERE id = ? AND status = 'scheduled'

-- name: expired
SELECT sessions.uid, instances.task, instances.number, instances.fence, sessions.manager
FROM instances INDEXED BY instances_leased JOIN sessions ON sessions.id = instances.session
WHERE instances.status = 'running' AND instances.lease_until < ? ORDER BY instances.lease_until LIMIT ?

-- name: backlog
-- How many instances are scheduled or running, counted in the two small indexes.
SELECT
    (SELECT count(*) FROM instances WHERE status = 'scheduled' AND run_at <= ?1),
    (SELECT count(*) FROM instances WHERE status = 'scheduled' AND run_at > ?1),
    (SELECT count(*) FROM instances WHERE status = 'running')

-- name: next_at
-- The first entry of each of the two small indexes.
SELECT
    (SELECT min(dispatch_after) FROM instances WHERE status = 'scheduled'),
    (SELECT min(lease_until) FROM instances WHERE status = 'running')

-- name: timers
-- Timers of a session by their time and number, those after a time and number.
SELECT {timer_columns} FROM timers WHERE session = ? AND (at, number) > (?, ?) ORDER BY at, number LIMIT ?

-- name: timers_named
-- The signs keep SQLite from reading all timers of the session in the order of their index.
SELECT {timer_columns} FROM timers
WHERE session = ? AND name IN (SELECT value FROM json_each(?)) ORDER BY +at, +number

-- name: timer_upsert
INSERT INTO timers (session, {timer_columns}) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (session, name) DO UPDATE SET at = excluded.at, number = excluded.number, body = excluded.body

-- name: timer_delete
DELETE FROM timers WHERE session = ? AND name = ?

-- name: timed_sessions
-- Sessions of one manager that have timers, the first to elapse first.
SELECT uid, next_timer_at FROM sessions INDEXED BY sessions_timed
WHERE manager = ? AND next_timer_at IS NOT NULL ORDER BY next_timer_at LIMIT ?

-- name: log_insert
INSERT INTO logs (session, instance, {columns}) VALUES (:session, :instance, {values})

-- name: log_level
-- The highest level, from a threshold on, among the records that a review does not cover.
SELECT coalesce(max(level), 0) FROM logs
WHERE instance = ? AND counts AND number > ? AND level >= ? AND number NOT IN (SELECT value FROM json_each(?))

-- name: logs
-- A page of records, the first or (DESC) the last ones. A parameter that is NULL does not filter.
SELECT {log_columns} FROM logs JOIN instances ON instances.id = logs.instance
WHERE logs.session = ?1 AND logs.id > ?2
  AND (?3 IS NULL OR logs.instance = (SELECT id FROM instances WHERE session = ?1 AND task = ?3 AND number = ?4))
  AND logs.level >= ?5
  AND (?6 = '' OR instr(lower(logs.message), lower(?6)) > 0)
  AND (?7 IS NULL OR {open} = ?7)
  AND (?8 IS NULL OR logs.fingerprint = ?8)
ORDER BY logs.id {order} LIMIT ?9

-- name: purge_find
-- A batch of records that may be deleted.
SELECT logs.id FROM logs JOIN instances ON instances.id = logs.instance
WHERE logs.id > ?5 AND {purgeable}
ORDER BY logs.id LIMIT ?6

-- name: purge_check
-- Those of the given records that may still be deleted.
SELECT logs.id FROM json_each(?5)
JOIN logs ON logs.id = json_each.value JOIN instances ON instances.id = logs.instance
WHERE {purgeable}

-- name: purge_record
DELETE FROM logs WHERE id = ?

-- name: purge_context
-- The record keeps its message.
UPDATE logs SET context = '{}', exception = ? WHERE id = ?

-- name: log_exception
SELECT exception FROM logs WHERE id = ?
