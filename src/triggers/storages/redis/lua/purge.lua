#!lua
-- Records of one session go, or lose their contexts, if their instances still are as they were seen.
--
-- KEYS 1 world  string: what the partition belongs to
--      2 s      hash: the session (see slice.lua)
--      3 x      sorted set: what is found in an order (see logs.lua)
-- ARGV 1 what `world` must be
--      2 … for each record: its cursor, its instance, the state that it had, its member after o, its member
--        after q, and the payload to keep, '' for none
-- Returns how many it was.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local s, going = KEYS[2], {}
for n = 2, #ARGV, 6 do
  local field = 'l' .. ARGV[n]
  if redis.call('HEXISTS', s, field) == 1 and redis.call('HGET', s, 'H' .. ARGV[n + 1]) == ARGV[n + 2] then
    going[#going + 1] = n
  end
end
for _, n in ipairs(going) do
  if ARGV[n + 5] == '' then
    redis.call('HDEL', s, 'l' .. ARGV[n])
    redis.call('ZREM', KEYS[3], ARGV[n + 3], ARGV[n + 4])
  else
    redis.call('HSET', s, 'l' .. ARGV[n], ARGV[n + 5])
  end
end
return #going
