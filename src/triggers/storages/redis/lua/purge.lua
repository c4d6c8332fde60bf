#!lua
-- Delete records of one session, or only their contexts, if the states of their instances have not changed.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 s      hash: the session (see slice.lua)
--      3 x      sorted set: the members of records (see logs.lua)
-- ARGV 1 the token that `world` must have
--      2 … for each record: its cursor, its instance, the expected state of the instance, its member with `o`, its
--        member with `q`, and the payload to keep, '' for none
-- Returns how many records were changed or deleted.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local s, found = KEYS[2], {}
redis.call('ZCARD', KEYS[3])  -- fails before anything is written if it has a wrong type
for n = 2, #ARGV, 6 do
  local field = 'l' .. ARGV[n]
  if redis.call('HEXISTS', s, field) == 1 and redis.call('HGET', s, 'H' .. ARGV[n + 1]) == ARGV[n + 2] then
    found[#found + 1] = n
  end
end
for _, n in ipairs(found) do
  if ARGV[n + 5] == '' then
    redis.call('HDEL', s, 'l' .. ARGV[n])
    redis.call('ZREM', KEYS[3], ARGV[n + 3], ARGV[n + 4])
  else
    redis.call('HSET', s, 'l' .. ARGV[n], ARGV[n + 5])
  end
end
return #found
