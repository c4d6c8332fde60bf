#!lua
-- Store the changes of a decision. Everything is read and checked before anything is written.
--
-- KEYS 1 world   string: the token of the keyspace
--      2 done    set: the ids of the commits of a minute; it expires
--      3 s       hash: the session (see slice.lua); `v` its version, `l` its latest cursor
--      4 c       hash: task → its counter
--      5 x       sorted set: members for searches in order (see slice.lua), and the log (see logs.lua)
--      6 q       string: the token of a commit that asks the others to wait
--      7 out     sorted set: scheduled instances of the partition, by the time of their next dispatch
--      8 cool    sorted set: those of them that must not start before a time, by that time
--      9 lease   sorted set: running instances of the partition, by the time at which their lease expires
--     10 uids    sorted set, all scores 0: the UIDs of the partition
--     11 rules   hash: digest → rule set
--     12 logged  sorted set: the sessions of the partition that have records, by an increasing number
--     13 ended   sorted set: the finalized sessions, by the time of their last change
-- ARGV 1 the token that `world` must have
--      2 id of the commit
--      3 the version that the session must have, '' if it must not exist, '-' for any
--      4 the name of the session in the sets of the partition (except `uids`)
--      5 the token of this commit, '' without one
--      … lists, each after its length: fields of the session and the values that they must have, '' for none;
--        fields of s; fields of c; members to remove from x; members to add to x, each after a 0; members to
--        remove from out and cool; from lease; scores and members for out; for cool; for lease; rule sets;
--        records, each as payload, instance, and sort key (number level counts fingerprint)
--        the UID of a new session, else ''; the score for `ended`, else ''

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
if redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 1 then return 'OK' end
local s = KEYS[3]
local version = ARGV[3]
if version ~= '-' and (redis.call('HGET', s, 'v') or '') ~= version then return 'CHANGED' end
local at = 6 + ARGV[6]
for n = 7, at, 2 do
  if (redis.call('HGET', s, ARGV[n]) or '') ~= ARGV[n + 1] then return 'CHANGED' end
end

local function apply(key, command)
  at = at + 1
  local last = at + ARGV[at]
  while at < last do
    local till = math.min(at + 1000, last)
    redis.call(command, key, unpack(ARGV, at + 1, till))
    at = till
  end
end

redis.call('SADD', KEYS[2], ARGV[2])
if redis.call('SCARD', KEYS[2]) == 1 then redis.call('EXPIRE', KEYS[2], 900) end
apply(s, 'HSET')
apply(KEYS[4], 'HSET')
apply(KEYS[5], 'ZREM')
apply(KEYS[5], 'ZADD')
local leaving = at
apply(KEYS[7], 'ZREM')
at = leaving
apply(KEYS[8], 'ZREM')
apply(KEYS[9], 'ZREM')
apply(KEYS[7], 'ZADD')
apply(KEYS[8], 'ZADD')
apply(KEYS[9], 'ZADD')
apply(KEYS[11], 'HSET')

local said = tonumber(ARGV[at + 1])
at = at + 2
if said > 0 then
  local cursor = redis.call('HINCRBY', s, 'l', said / 3) - said / 3
  if cursor == 0 then
    local last = redis.call('ZRANGE', KEYS[12], -1, -1, 'WITHSCORES')
    redis.call('ZADD', KEYS[12], (last[2] or 0) + 1, ARGV[4])
  end
  for n = at, at + said - 1, 3 do
    cursor = cursor + 1
    local place = string.format('%016d', cursor)
    redis.call('HSET', s, 'l' .. place, ARGV[n])
    redis.call('ZADD', KEYS[5], 0, 'o' .. place .. '\0' .. ARGV[n + 1] .. '\0' .. ARGV[n + 2],
      0, 'q' .. ARGV[n + 1] .. '\0' .. place .. '\0' .. ARGV[n + 2])
  end
  at = at + said
end
if ARGV[at] ~= '' then redis.call('ZADD', KEYS[10], 0, ARGV[at]) end
if ARGV[at + 1] ~= '' then redis.call('ZADD', KEYS[13], ARGV[at + 1], ARGV[4]) end
if ARGV[5] ~= '' and redis.call('GET', KEYS[6]) == ARGV[5] then redis.call('DEL', KEYS[6]) end
return 'OK'
