#!lua flags=no-writes
-- When the first instances of a partition have to be dispatched or rescued.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 index  sorted set: `out` (scheduled, by the time of their next dispatch) or `lease` (running, by the time
--               at which their lease expires)
--      3 cool   sorted set: scheduled instances that must not start before a time, by that time
-- ARGV 1 the token that `world` must have
--      2 'out' or 'lease'
--      3 how far to look ahead; if not 0, instances that must not start yet are left out
--      4 the greatest number of results
-- Returns the times of these instances.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local now, most = @clock@, tonumber(ARGV[4])
local till = string.format('%.0f', now + ARGV[3])
if ARGV[2] == 'lease' then till = '(' .. till end
redis.call('ZCARD', KEYS[3])  -- fails with the same keys whether it looks ahead or not
local times, offset = {}, 0
while #times < most do
  local page = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', till, 'WITHSCORES', 'LIMIT', offset, most)
  for n = 1, #page, 2 do
    local later = ARGV[3] ~= '0' and redis.call('ZSCORE', KEYS[3], page[n])
    if #times < most and not (later and tonumber(later) > now) then times[#times + 1] = page[n + 1] end
  end
  if #page < 2 * most then break end
  offset = offset + most
end
return times
