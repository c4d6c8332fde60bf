#!lua flags=no-writes
-- When the first of a partition's instances are to be handed over, or lost their lease.
--
-- KEYS 1 world  string: what the partition belongs to
--      2 index  sorted set: `out` (scheduled, by when they are to be handed over) or `lease` (running, by when
--               their lease runs out)
--      3 cool   sorted set: scheduled instances that may not run before a time, by that time
-- ARGV 1 what `world` must be
--      2 'out' or 'lease'
--      3 how far to look ahead of the time; what may not run yet is left out then
--      4 how many at most
-- Returns their times.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local now, most = @clock@, tonumber(ARGV[4])
local till = string.format('%.0f', now + ARGV[3])
if ARGV[2] == 'lease' then till = '(' .. till end
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
