#!lua flags=no-writes
-- What a decision asks for of one session, and nothing else.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 s      hash: the session; fields: `k` trigger NUL key → number of a firing, `f` and `p` number → a firing
--               and its payload, `t` trigger → its latest firing, `H` and `B` instance → its state and its rest,
--               `T` name → a timer: its time and its number, which both have a fixed length, and the rest
--      3 c      hash: task → its counter
--      4 x      sorted set, all scores 0, in the order of its members: `w` trigger NUL instance for an instance that
--               lacks a trigger, `u` instance for an unstarted one, `g` instance for one that needs a review,
--               `q` instance NUL cursor NUL number level counts fingerprint for a record, `z` time number name
--               for a timer
-- ARGV 1 the token that `world` must have
--      2 the version that the session must have, '-' for any
--      3 the field of an idempotency key, '' for none
--      4 the number of counters, -1 for all; then the tasks
--      … the number of latest firings, then their fields; the number of triggers, then the triggers whose waiting
--        instances are wanted; the number of instances, then their names; the number of tasks, then the tasks
--        whose unstarted instances are wanted; 1 for the payloads of the firings that the instances took, else 0;
--        the level of flagged instances, '' for none, and their greatest number;
--        1 for the highest level that a review of the only instance leaves open, else 0; then the number up to
--        which it covers records, the lowest level, and ',' number ',' for each other record that it covers
--        only if timers are wanted: their greatest number, where their range begins (as ZRANGEBYLEX takes it); then
--        the names of other timers that are wanted
-- The name of an instance is task NUL number, with 18 digits. Its state is text of eleven parts: version, status,
-- fence, lease, `run_at`, `dispatch_after`, `handovers`, unresolved level, the number up to which a review covers its
-- records, the other records that a review covers, and the firings that it took.
-- Returns the firing of the key, counters, latest firings, instances as triples, payloads as pairs, flagged instances,
-- level, version of the session; and if timers are wanted, those of the range and those with the names, as pairs of name
-- and timer. The timer is false if the hash and the sorted set do not agree about it.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local s, c, x = KEYS[2], KEYS[3], KEYS[4]
local version = redis.call('HGET', s, 'v')
if ARGV[2] ~= '-' and version ~= ARGV[2] then return 'CHANGED' end

local at = 4
local function list()
  local from, count = at + 1, tonumber(ARGV[at])
  at = from + math.max(count, 0)
  return from, at - 1, count
end

local keyed = {}
if ARGV[3] ~= '' then
  local number = redis.call('HGET', s, ARGV[3])
  if number then
    local found = redis.call('HMGET', s, 'f' .. number, 'p' .. number)
    keyed = {number, found[1], found[2]}
  end
end

local counters = {}
local from, last, count = list()
if count < 0 then
  counters = redis.call('HGETALL', c)
else
  for first = from, last, 1000 do
    local till = math.min(first + 999, last)
    local found = redis.call('HMGET', c, unpack(ARGV, first, till))
    for n = first, till do
      if found[n - first + 1] then
        counters[#counters + 1] = ARGV[n]
        counters[#counters + 1] = found[n - first + 1]
      end
    end
  end
end

local latest = {}
from, last = list()
for first = from, last, 1000 do
  local till = math.min(first + 999, last)
  for _, found in ipairs(redis.call('HMGET', s, unpack(ARGV, first, till))) do
    latest[#latest + 1] = found
  end
end

local names = {}
from, last = list()
for n = from, last do
  local begin = 'w' .. ARGV[n]
  for _, member in ipairs(redis.call('ZRANGEBYLEX', x, '[' .. begin .. '\0', '(' .. begin .. '\1')) do
    names[#names + 1] = string.sub(member, #begin + 2)
  end
end
from, last = list()
for n = from, last do names[#names + 1] = ARGV[n] end
from, last = list()
for n = from, last do
  local begin = 'u' .. ARGV[n]
  for _, member in ipairs(redis.call('ZRANGEBYLEX', x, '[' .. begin .. '\0', '(' .. begin .. '\1')) do
    names[#names + 1] = string.sub(member, 2)
  end
end

local instances, payloads, numbers = {}, {}, {}
local wants_payloads = ARGV[at] == '1'
for _, name in ipairs(names) do
  local found = redis.call('HMGET', s, 'H' .. name, 'B' .. name)
  if found[1] then
    instances[#instances + 1] = name
    instances[#instances + 1] = found[1]
    instances[#instances + 1] = found[2]
    if wants_payloads then
      for number in string.gmatch(string.match(found[1], '%S+$'), '%d+') do
        if not numbers[number] then
          numbers[number] = true
          payloads[#payloads + 1] = number
          payloads[#payloads + 1] = redis.call('HGET', s, 'p' .. number)
        end
      end
    end
  end
end

local flagged = {}
local threshold, most = ARGV[at + 1], tonumber(ARGV[at + 2])
if threshold ~= '' then
  threshold = tonumber(threshold)
  local begin = '[g'
  while #flagged < most do
    local page = redis.call('ZRANGEBYLEX', x, begin, '(h', 'LIMIT', 0, 500)
    for _, member in ipairs(page) do
      local name = string.sub(member, 2)
      local status, level = string.match(redis.call('HGET', s, 'H' .. name), '^%d+ (%S+) %d+ %S+ %S+ %S+ %d+ (%d+)')
      if status == 'finished' and tonumber(level) >= threshold and #flagged < most then
        flagged[#flagged + 1] = name
      end
    end
    if #page < 500 then break end
    begin = '(' .. page[#page]
  end
end

local level = 0
if ARGV[at + 3] == '1' and #names > 0 then
  local beyond, lowest, chosen = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), ARGV[at + 6]
  local begin = 'q' .. names[1]
  for _, member in ipairs(redis.call('ZRANGEBYLEX', x, '[' .. begin .. '\0', '(' .. begin .. '\1')) do
    local number, said, counts = string.match(member, '(%d+) (%-?%d+) (%d) %S*$')
    said = tonumber(said)
    if counts == '1' and said >= lowest and said > level and tonumber(number) > beyond
      and not string.find(chosen, ',' .. number .. ',', 1, true) then
      level = said
    end
  end
end

at = at + (ARGV[at + 3] == '1' and 7 or 4)
if not ARGV[at] then return {keyed, counters, latest, instances, payloads, flagged, level, version} end
local timers, named = {}, {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', x, ARGV[at + 1], '({', 'LIMIT', 0, ARGV[at])) do
  local order, name = string.match(member, '^z(%S+ %S+ )(.*)$')
  local found = redis.call('HGET', s, 'T' .. name)
  timers[#timers + 1] = name
  timers[#timers + 1] = found and string.match(found, '^%S+ %S+ ') == order and found
end
for n = at + 2, #ARGV do
  local found = redis.call('HGET', s, 'T' .. ARGV[n])
  if found then
    named[#named + 1] = ARGV[n]
    named[#named + 1] = redis.call('ZSCORE', x, 'z' .. (string.match(found, '^%S+ %S+ ') or '') .. ARGV[n]) and found
  end
end
return {keyed, counters, latest, instances, payloads, flagged, level, version, timers, named}
