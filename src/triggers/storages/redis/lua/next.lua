#!lua flags=no-writes
-- When something of a partition wants attention.
--
-- KEYS 1 world  string: what the partition belongs to
--      2 out    sorted set: scheduled instances of the partition, by when they are to be handed over
--      3 lease  sorted set: running instances of the partition, by when their lease runs out
-- ARGV 1 what `world` must be
-- Returns the first time of either set, '' without.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local out = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local lease = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
return {out[2] or '', lease[2] or ''}
