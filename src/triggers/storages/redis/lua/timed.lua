#!lua flags=no-writes
-- The sessions of a partition that have timers, those of some managers, those whose first timer is due earliest first.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 timed  sorted set, all scores 0: manager NUL time session
-- ARGV 1 the token that `world` must have
--      2 the greatest number of results
--      3 … the managers
-- Returns time and session, with a space between them, for each session.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local found, first = {}, {}
for n = 3, #ARGV do
  local manager = ARGV[n] .. '\0'
  local page = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. manager, '(' .. ARGV[n] .. '\1', 'LIMIT', 0, ARGV[2])
  for _, member in ipairs(page) do found[#found + 1] = string.sub(member, #manager + 1) end
end
table.sort(found)
for n = 1, math.min(#found, ARGV[2]) do first[n] = found[n] end
return first
