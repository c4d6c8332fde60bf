#!lua flags=no-writes
-- How many instances of a partition are scheduled or running.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 out    sorted set: scheduled instances of the partition, by the time of their next dispatch
--      3 cool   sorted set: those of them that must not start before a time, by that time
--      4 lease  sorted set: running instances of the partition, by the time at which their lease expires
-- ARGV 1 the token that `world` must have
-- Returns the number of scheduled instances, how many of them must not start yet, and the number of running instances.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local later = redis.call('ZCOUNT', KEYS[3], string.format('(%.0f', @clock@), '+inf')
return {redis.call('ZCARD', KEYS[2]), later, redis.call('ZCARD', KEYS[4])}
