#!lua flags=no-writes
-- Running instances of a partition whose lease has expired. Nothing is changed.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 lease  sorted set: running instances of the partition, by the time at which their lease expires
--      The hashes of the sessions are not known in advance: ARGV 3 followed by the first part of a member names one.
-- ARGV 1 the token that `world` must have
--      2 the greatest number of results
--      3 the prefix of the keys of sessions
-- Returns time, member, fence and the session's manager for each instance. The fence of one that cannot be read is '!'.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local till = string.format('(%.0f', @clock@)
local page = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', till, 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local found = {}
for n = 1, #page, 2 do
  local uid, name = string.match(page[n], '^([^|]*)|(.*)$')
  local kept = redis.pcall('HMGET', ARGV[3] .. (uid or ''), 'H' .. (name or ''), 'g')
  local state = not kept.err and kept[1] or ''
  local fence = string.match(state, '^%d+ running (%d+) ')
  if fence or not string.match(state, '^%d+ %l+ %d+ ') then
    local manager = fence and kept[2] or ''
    for _, part in ipairs({page[n + 1], page[n], fence or '!', manager}) do found[#found + 1] = part end
  end
end
return found
