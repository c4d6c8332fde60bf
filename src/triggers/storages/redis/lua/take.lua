#!lua
-- Take scheduled instances of a partition to dispatch. They are not due again before a pause.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 out    sorted set: scheduled instances of the partition, by the time of their next dispatch
--      3 cool   sorted set: those of them that must not start before a time, by that time
--      4 rules  hash: digest → rule set; only checked, because the caller reads it next
--      The hashes of the sessions are not known in advance: ARGV 6 followed by the first part of a member names one.
-- ARGV 1 the token that `world` must have
--      2 the greatest number of results
--      3 how far to look ahead; if not 0, instances that must not start yet are left out
--      4 the first pause
--      5 how many times the first pause the longest pause is
--      6 the prefix of the keys of sessions
-- Returns time, member and digest of the session's rules for each instance. The digest for one that cannot be read is
-- '!', and it is not due again before the longest pause.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local now, most = @clock@, tonumber(ARGV[2])
local till = string.format('%.0f', now + ARGV[3])
redis.call('HLEN', KEYS[4])  -- fails before anything is written if it has a wrong type
local found, stale, damaged, offset = {}, {}, {}, 0
while #found < most do
  local page = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', till, 'WITHSCORES', 'LIMIT', offset, most)
  for n = 1, #page, 2 do
    local member = page[n]
    local later = ARGV[3] ~= '0' and redis.call('ZSCORE', KEYS[3], member)
    if #found < most and not (later and tonumber(later) > now) then
      local uid, name = string.match(member, '^([^|]*)|(.*)$')
      local kept = redis.pcall('HMGET', ARGV[6] .. (uid or ''), 'H' .. (name or ''), 'r')
      local state = not kept.err and kept[1] or ''
      local before, handovers, after = string.match(state, '^(%d+ scheduled %d+ %S+ %S+) %S+ (%d+) (.*)$')
      if kept.err or (state ~= '' and not before and not string.match(state, '^%d+ %l+ %d+ '))
        or string.match(state, '^%d+ scheduled ') and not before then
        damaged[#damaged + 1] = {page[n + 1], member}
      elseif before then
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
for _, one in ipairs(damaged) do
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[4] * ARGV[5]), one[2])
  taken[#taken + 1] = one[1]
  taken[#taken + 1] = one[2]
  taken[#taken + 1] = '!'
end
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
