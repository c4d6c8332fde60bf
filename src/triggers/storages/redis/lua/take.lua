#!lua
-- Scheduled instances of a partition are taken to be handed over, and are not due again before a pause.
--
-- KEYS 1 world  string: what the partition belongs to
--      2 out    sorted set: scheduled instances of the partition, by when they are to be handed over
--      3 cool   sorted set: those of them that may not run before a time, by that time
--      The hashes of the sessions cannot be known before: ARGV 6 followed by the first part of a member names one.
-- ARGV 1 what `world` must be
--      2 how many at most
--      3 how far to look ahead of the time; what may not run yet is left out then
--      4 the first pause
--      5 up to how many times of it the pause doubles
--      6 what the keys of sessions begin with
-- Returns time, member and digest of the session's rules, for each.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local now, most = @clock@, tonumber(ARGV[2])
local till = string.format('%.0f', now + ARGV[3])
local found, stale, offset = {}, {}, 0
while #found < most do
  local page = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', till, 'WITHSCORES', 'LIMIT', offset, most)
  for n = 1, #page, 2 do
    local member = page[n]
    local later = ARGV[3] ~= '0' and redis.call('ZSCORE', KEYS[3], member)
    if #found < most and not (later and tonumber(later) > now) then
      local uid, name = string.match(member, '^([^|]*)|(.*)$')
      local kept = redis.call('HMGET', ARGV[6] .. uid, 'H' .. name, 'r')
      local before, handovers, after =
        string.match(kept[1] or '', '^(%d+ scheduled %d+ %S+ %S+) %S+ (%d+) (.*)$')
      if before then
        found[#found + 1] = {page[n + 1], member, kept[2], ARGV[6] .. uid, 'H' .. name, before, handovers, after}
      else
        stale[#stale + 1] = member
      end
    end
  end
  if #page < 2 * most then break end
  offset = offset + most
end

for _, member in ipairs(stale) do redis.call('ZREM', KEYS[2], member) end
local taken = {}
for _, one in ipairs(found) do
  local again = string.format('%.0f', now + ARGV[4] * math.min(2 ^ math.min(one[7], 32), ARGV[5]))
  redis.call('HSET', one[4], one[5],
    one[6] .. ' ' .. again .. ' ' .. string.format('%.0f', one[7] + 1) .. ' ' .. one[8])
  redis.call('ZADD', KEYS[2], again, one[2])
  taken[#taken + 1] = one[1]
  taken[#taken + 1] = one[2]
  taken[#taken + 1] = one[3]
end
return taken
