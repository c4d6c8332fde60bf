#!lua
-- Delete finalized sessions that have not changed for a time, with all their data. A session with an instance that has
-- to run, a record that needs a review, or a timer is kept.
--
-- KEYS 1 world   string: the token of the keyspace
--      2 ended   sorted set: the finalized sessions of the partition, by the time of their last change
--      3 uids    sorted set, all scores 0: the UIDs of the partition
--      4 logged  sorted set: the sessions that have records
--      The keys of the sessions are not known in advance: they are ARGV 4 to 6 followed by a member of `ended`.
-- ARGV 1 the token that `world` must have
--      2 the time without a change
--      3 the greatest number of sessions to examine
--      4, 5 and 6 the prefixes of the keys s, c and x of sessions
-- Returns how many sessions were examined, and how many were deleted.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local now = @clock@
for n = 3, 4 do redis.call('ZCARD', KEYS[n]) end  -- fails before anything is written if one has a wrong type
@named@
local page = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - ARGV[2]),
  'LIMIT', 0, ARGV[3])
local deleted, kept = {}, {}
for _, member in ipairs(page) do
  local x, next_timer_at = ARGV[6] .. member, '^%[' .. string.rep('[^,]*,', 6) .. '%-?%d'
  local busy = #named('ZRANGEBYLEX', x, '[g', '(h', 'LIMIT', 0, 1) > 0
    or #named('ZRANGEBYLEX', x, '[z', '({', 'LIMIT', 0, 1) > 0
    -- After the last timer was cancelled, the session can still be in `timed`.
    or string.match(named('HGET', ARGV[4] .. member, 'h') or '', next_timer_at)
  for _, counter in ipairs(named('HVALS', ARGV[5] .. member)) do
    busy = busy or string.match(counter, ' (%d+)$') ~= '0'
  end
  local list = busy and kept or deleted
  list[#list + 1] = {member, named('HGET', ARGV[4] .. member, 'u')}
end
for _, one in ipairs(kept) do redis.call('ZADD', KEYS[2], string.format('%.0f', now), one[1]) end
for _, one in ipairs(deleted) do
  local member, uid = one[1], one[2]
  redis.call('UNLINK', ARGV[4] .. member, ARGV[5] .. member, ARGV[6] .. member)
  redis.call('ZREM', KEYS[2], member)
  redis.call('ZREM', KEYS[4], member)
  if uid then redis.call('ZREM', KEYS[3], uid) end
end
return {#page, #deleted}
