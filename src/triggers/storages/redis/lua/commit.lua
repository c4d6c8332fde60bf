#!lua
-- Store the changes of a decision. Everything is read and checked before anything is written. Every key that is written
-- is read first, so a key of a wrong type fails the script before it has changed anything.
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
--     14 timed   only if timers change: sorted set, all scores 0: manager NUL time session, for the sessions with timers
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
--        only with `timed`: the members to remove from it and to add to it, '' for none; then the names of the timers
--        that are removed before fields of s and members of x are stored
-- Returns 'OK', 'CHANGED', or 'DAMAGED' and the name of a timer that cannot be removed.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
if redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 1 then return 'OK' end
local s = KEYS[3]
local version = ARGV[3]
if version ~= '-' and (redis.call('HGET', s, 'v') or '') ~= version then return 'CHANGED' end
local at = 6 + ARGV[6]
for n = 7, at, 2 do
  if (redis.call('HGET', s, ARGV[n]) or '') ~= ARGV[n + 1] then return 'CHANGED' end
end

local steps, written = {}, {[s] = 'HLEN'}
local function step(command, read, ...)
  local count = tonumber(ARGV[at + 1])
  if count > 0 then
    for _, key in ipairs({...}) do
      written[key] = read
      steps[#steps + 1] = {command, key, at + 1, at + 1 + count}
    end
  end
  at = at + 1 + count
end

step('HSET', 'HLEN', s)
step('HSET', 'HLEN', KEYS[4])
step('ZREM', 'ZCARD', KEYS[5])
step('ZADD', 'ZCARD', KEYS[5])
step('ZREM', 'ZCARD', KEYS[7], KEYS[8])
step('ZREM', 'ZCARD', KEYS[9])
step('ZADD', 'ZCARD', KEYS[7])
step('ZADD', 'ZCARD', KEYS[8])
step('ZADD', 'ZCARD', KEYS[9])
step('HSET', 'HLEN', KEYS[11])

local records = tonumber(ARGV[at + 1])  -- how many arguments the records have, three each
at = at + 2
if records > 0 then written[KEYS[5]], written[KEYS[12]] = 'ZCARD', 'ZCARD' end
if ARGV[at + records] ~= '' then written[KEYS[10]] = 'ZCARD' end
if ARGV[at + records + 1] ~= '' then written[KEYS[13]] = 'ZCARD' end
local removed = {}
if KEYS[14] then written[KEYS[14]] = 'ZCARD' end
for n = at + records + 4, #ARGV do
  local old = redis.call('HGET', s, 'T' .. ARGV[n])
  if old then
    local member = 'z' .. (string.match(old, '^%S+ %S+ ') or '') .. ARGV[n]
    if not redis.call('ZSCORE', KEYS[5], member) then return 'DAMAGED' .. ARGV[n] end
    removed['T' .. ARGV[n]] = member
  end
end
for key, read in pairs(written) do redis.call(read, key) end
local is_mine = ARGV[5] ~= '' and redis.call('GET', KEYS[6]) == ARGV[5]

-- This write comes first, because it fails if `l` is not a number.
local cursor = records > 0 and redis.call('HINCRBY', s, 'l', records / 3) - records / 3
redis.call('SADD', KEYS[2], ARGV[2])
if redis.call('SCARD', KEYS[2]) == 1 then redis.call('EXPIRE', KEYS[2], 900) end
for field, member in pairs(removed) do
  redis.call('HDEL', s, field)
  redis.call('ZREM', KEYS[5], member)
end
for _, one in ipairs(steps) do
  local command, key, before, last = unpack(one)
  for first = before + 1, last, 1000 do
    redis.call(command, key, unpack(ARGV, first, math.min(first + 999, last)))
  end
end
if records > 0 then
  if cursor == 0 then
    local last = redis.call('ZRANGE', KEYS[12], -1, -1, 'WITHSCORES')
    redis.call('ZADD', KEYS[12], (last[2] or 0) + 1, ARGV[4])
  end
  for n = at, at + records - 1, 3 do
    cursor = cursor + 1
    local place = string.format('%016d', cursor)
    redis.call('HSET', s, 'l' .. place, ARGV[n])
    redis.call('ZADD', KEYS[5], 0, 'o' .. place .. '\0' .. ARGV[n + 1] .. '\0' .. ARGV[n + 2],
      0, 'q' .. ARGV[n + 1] .. '\0' .. place .. '\0' .. ARGV[n + 2])
  end
  at = at + records
end
if ARGV[at] ~= '' then redis.call('ZADD', KEYS[10], 0, ARGV[at]) end
if ARGV[at + 1] ~= '' then redis.call('ZADD', KEYS[13], ARGV[at + 1], ARGV[4]) end
if KEYS[14] and ARGV[at + 2] ~= '' then redis.call('ZREM', KEYS[14], ARGV[at + 2]) end
if KEYS[14] and ARGV[at + 3] ~= '' then redis.call('ZADD', KEYS[14], 0, ARGV[at + 3]) end
if is_mine then redis.call('DEL', KEYS[6]) end
return 'OK'
