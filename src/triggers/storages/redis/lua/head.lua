#!lua flags=no-writes
-- The head of a session, the time, and who asked the others to wait.
--
-- KEYS 1 world  string: what the partition belongs to
--      2 s      hash: the session
--      3 q      string: token of whoever asks for a moment alone
-- ARGV 1 what `world` must be
-- Returns version, digest of rules, manager, numbers, metadata, time, token; false for what is not there.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local head = redis.call('HMGET', KEYS[2], 'v', 'r', 'g', 'h', 'm')
head[6] = string.format('%.0f', @clock@)
head[7] = redis.call('GET', KEYS[3])
return head
