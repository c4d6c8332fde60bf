#!lua flags=no-writes
-- A page of instances of a session, in the order of the arguments. The number of examined instances is limited.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 s  hash: the session (see slice.lua)
--      3 x  sorted set: members for searches in order (see slice.lua)
-- ARGV 1 the token that `world` must have
--      2 the greatest number of results
--      3 the greatest number of instances to examine
--      4 ' status status … ', the possible statuses, '' for any
--      5 the lowest level of records that need a review, '' for any. With a level, only instances that need a review
--        are examined, in the range of the next two arguments (as ZRANGEBYLEX takes them)
--      6 without a level, for each task: the task, its first number, and the number after its last
-- Returns the last examined instance, '' at the end; then the results as triples of name, state, rest.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local s, most, budget = KEYS[2], tonumber(ARGV[2]), tonumber(ARGV[3])
local wanted, level = ARGV[4], tonumber(ARGV[5])
local found = {''}

local function look(name)
  local state = redis.call('HGET', s, 'H' .. name)
  if not state then return end
  local status, unresolved = string.match(state, '^%d+ (%S+) %d+ %S+ %S+ %S+ %d+ (%d+)')
  if wanted ~= '' and not string.find(wanted, ' ' .. status .. ' ', 1, true) then return end
  if level and tonumber(unresolved) < level then return end
  found[#found + 1] = name
  found[#found + 1] = state
  found[#found + 1] = redis.call('HGET', s, 'B' .. name)
end

if level then
  local page = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[6], ARGV[7], 'LIMIT', 0, budget)
  for _, member in ipairs(page) do
    local name = string.sub(member, 2)
    look(name)
    if #found > 3 * most then
      found[1] = name
      return found
    end
  end
  if #page == budget then found[1] = string.sub(page[#page], 2) end
  return found
end

for n = 6, #ARGV, 3 do
  for number = tonumber(ARGV[n + 1]), ARGV[n + 2] - 1 do
    local name = ARGV[n] .. '\0' .. string.format('%018d', number)
    look(name)
    budget = budget - 1
    if #found > 3 * most or budget == 0 then
      found[1] = name
      return found
    end
  end
end
return found
