#!lua flags=no-writes
-- A page of a session's records. The number of examined records is limited.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 s  hash: the session; `l` cursor → a record (see slice.lua)
--      3 x  sorted set, all scores 0: `o` cursor NUL instance NUL number level counts fingerprint for the log of the
--           session, `q` instance NUL cursor NUL number level counts fingerprint for those of its instances
-- ARGV 1 the token that `world` must have
--      2 the greatest number of results
--      3 the greatest number of records to examine
--      4 and 5 the range of members, as ZRANGEBYLEX takes it
--      6 1 to return the last records first (the range is then as ZREVRANGEBYLEX takes it), else 0
--      7 the lowest level
--      8 1 for records that no review covers, 0 for those that a review covers, '' for both
--      9 the fingerprint, '' for any
--      10 1 to also return the states of the instances
-- Returns the last examined member, '' at the end; then for each result its member, its payload, whether a review
-- covers it, and the state of its instance if that was asked for.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local s, most = KEYS[2], tonumber(ARGV[2])
local command = ARGV[6] == '1' and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'
local lowest, unresolved, kind = tonumber(ARGV[7]), ARGV[8], ARGV[9]
local page = redis.call(command, KEYS[3], ARGV[4], ARGV[5], 'LIMIT', 0, ARGV[3])
local found, count, states = {''}, 0, {}

for _, member in ipairs(page) do
  local number, level, counts, its = string.match(member, '(%d+) (%-?%d+) (%d) (%S*)$')
  if tonumber(level) >= lowest and (kind == '' or its == kind) then
    local cursor, name = string.match(member, '^o(%d+)%z(.*)%z')
    if not cursor then name, cursor = string.match(member, '^q(.*%z%d+)%z(%d+)%z') end
    states[name] = states[name] or redis.call('HGET', s, 'H' .. name)
    local through, chosen = string.match(states[name], '(%d+) (%S+) %S+$')
    local open = counts == '1' and tonumber(number) > tonumber(through)
      and not string.find(',' .. chosen .. ',', ',' .. number .. ',', 1, true)
    if unresolved == '' or (unresolved == '1') == open then
      count = count + 1
      found[#found + 1] = member
      found[#found + 1] = redis.call('HGET', s, 'l' .. cursor)
      found[#found + 1] = open and 0 or 1
      if ARGV[10] == '1' then found[#found + 1] = states[name] end
      if count == most then
        found[1] = member
        return found
      end
    end
  end
end
if #page == tonumber(ARGV[3]) then found[1] = page[#page] end
return found
