#!lua flags=no-writes
-- The head of a session, the time, and the token of a commit that asks the others to wait.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 s      hash: the session
--      3 q      string: the token of a commit that asks the others to wait
-- ARGV 1 the token that `world` must have
-- Returns version, digest of rules, manager, numbers, metadata, time, token; false for a missing value.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local head = redis.call('HMGET', KEYS[2], 'v', 'r', 'g', 'h', 'm')
head[6] = string.format('%.0f', @clock@)
head[7] = redis.call('GET', KEYS[3])
return head
