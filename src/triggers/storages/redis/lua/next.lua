#!lua flags=no-writes
-- When the next instance of a partition has to be dispatched or rescued.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 out    sorted set: scheduled instances of the partition, by the time of their next dispatch
--      3 lease  sorted set: running instances of the partition, by the time at which their lease expires
-- ARGV 1 the token that `world` must have
-- Returns the first time of each set, '' for an empty set.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local out = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local lease = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
return {out[2] or '', lease[2] or ''}
