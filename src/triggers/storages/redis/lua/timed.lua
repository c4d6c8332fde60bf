#!lua flags=no-writes
-- The sessions of a partition that have timers, those of some managers, those whose first timer is due earliest first.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 timed  sorted set, all scores 0: manager NUL time session
--      The hashes of the sessions are not known in advance: ARGV 3 followed by a session names one.
-- ARGV 1 the token that `world` must have
--      2 the greatest number of results
--      3 the prefix of the keys of sessions
--      4 … the managers
-- Returns time and session, with a space between them, for each session; then the same after a '!' for those that were
-- found, but cannot be read.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local most, found, first, damaged = tonumber(ARGV[2]), {}, {}, {}
for n = 4, #ARGV do
  local manager, last, offset, wanted = ARGV[n] .. '\0', '(' .. ARGV[n] .. '\1', 0, #found + most
  repeat
    local page = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. manager, last, 'LIMIT', offset, most)
    for _, member in ipairs(page) do
      local entry = string.sub(member, #manager + 1)
      local there = redis.pcall('HEXISTS', ARGV[3] .. (string.match(entry, '%S+$') or ''), 'v') == 1
      local list = there and found or damaged
      list[#list + 1] = there and entry or '!' .. entry
    end
    offset = offset + most
  until #found >= wanted or #page < most
end
table.sort(found)
for n = 1, math.min(#found, most) do first[n] = found[n] end
for _, entry in ipairs(damaged) do first[#first + 1] = entry end
return first
