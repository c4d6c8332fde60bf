#!lua
-- Finalised sessions that nobody has fired into for long go, each with all that it has; one that has an instance
-- still to run, or a record still to review, stays.
--
-- KEYS 1 world   string: what the partition belongs to
--      2 ended   sorted set: the partition's finalised sessions, by when they last changed
--      3 uids    sorted set, all scores 0: the partition's sessions
--      4 logged  sorted set: those that have records
--      The keys of the sessions cannot be known before: ARGV 4 to 6 followed by a member of `ended` name them.
-- ARGV 1 what `world` must be
--      2 after how long
--      3 how many at most
--      4, 5 and 6 what the keys s, c and x of sessions begin with
-- Returns how many were looked at, and how many went.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local now = @clock@
local page = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - ARGV[2]),
  'LIMIT', 0, ARGV[3])
local going, staying = {}, {}
for _, member in ipairs(page) do
  local busy = #redis.call('ZRANGEBYLEX', ARGV[6] .. member, '[g', '(h', 'LIMIT', 0, 1) > 0
  for _, counter in ipairs(redis.call('HVALS', ARGV[5] .. member)) do
    busy = busy or string.match(counter, ' (%d+)$') ~= '0'
  end
  local list = busy and staying or going
  list[#list + 1] = {member, redis.call('HGET', ARGV[4] .. member, 'u')}
end
for _, one in ipairs(staying) do redis.call('ZADD', KEYS[2], string.format('%.0f', now), one[1]) end
for _, one in ipairs(going) do
  local member, uid = one[1], one[2]
  redis.call('UNLINK', ARGV[4] .. member, ARGV[5] .. member, ARGV[6] .. member)
  redis.call('ZREM', KEYS[2], member)
  redis.call('ZREM', KEYS[4], member)
  if uid then redis.call('ZREM', KEYS[3], uid) end
end
return {#page, #going}
