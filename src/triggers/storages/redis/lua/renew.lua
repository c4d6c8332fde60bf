#!lua
-- A heartbeat: extend the leases that still hold.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 lease  sorted set: running instances of the partition, by the time at which their lease expires
--      3 …      hashes: the sessions of the leases, without repetition
-- ARGV 1 the token that `world` must have
--      2 the new duration of the leases
--      3 … for each lease: the index of its session, its member in `lease`, its instance, its fence
-- Returns the indexes of the lost leases, counted from 1.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local till = string.format('%.0f', @clock@ + ARGV[2])
local lost, held = {}, {}
redis.call('ZCARD', KEYS[2])  -- fails before anything is written if it has a wrong type
for n = 3, #ARGV, 4 do
  local state = redis.call('HGET', KEYS[2 + ARGV[n]], 'H' .. ARGV[n + 2])
  local before, fence, after = string.match(state or '', '^(%d+ running (%d+)) %S+ (.*)$')
  if fence == ARGV[n + 3] then
    held[#held + 1] = {n, before .. ' ' .. till .. ' ' .. after}
  else
    lost[#lost + 1] = (n + 1) / 4
  end
end
for _, one in ipairs(held) do
  local n = one[1]
  redis.call('HSET', KEYS[2 + ARGV[n]], 'H' .. ARGV[n + 2], one[2])
  redis.call('ZADD', KEYS[2], till, ARGV[n + 1])
end
return lost
