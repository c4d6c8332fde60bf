#!lua flags=no-writes
-- What is still to do in a partition.
--
-- KEYS 1 world  string: what the partition belongs to
--      2 out    sorted set: scheduled instances of the partition, by when they are to be handed over
--      3 cool   sorted set: those of them that may not run before a time, by that time
--      4 lease  sorted set: running instances of the partition, by when their lease runs out
-- ARGV 1 what `world` must be
-- Returns how many are scheduled, how many of them for later, and how many run.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local later = redis.call('ZCOUNT', KEYS[3], string.format('(%.0f', @clock@), '+inf')
return {redis.call('ZCARD', KEYS[2]), later, redis.call('ZCARD', KEYS[4])}
