#!lua
-- The head of a session as head.lua gives it, and the request that all others wait for a moment, unless somebody
-- else's stands.
--
-- KEYS 1 world  string: what the partition belongs to
--      2 s      hash: the session
--      3 q      string: token of whoever asks for a moment alone; it expires
-- ARGV 1 what `world` must be
--      2 the token to ask with
--      3 for how many milliseconds
-- Returns what head.lua returns.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'GONE' end
local head = redis.call('HMGET', KEYS[2], 'v', 'r', 'g', 'h', 'm')
head[6] = string.format('%.0f', @clock@)
local token = redis.call('GET', KEYS[3])
if not token or token == ARGV[2] then
  redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
  token = ARGV[2]
end
head[7] = token
return head
