#!lua
-- The head of a session as head.lua returns it. Also asks other commits to wait, unless another commit has asked
-- already.
--
-- KEYS 1 world  string: the token of the keyspace
--      2 s      hash: the session
--      3 q      string: the token of a commit that asks the others to wait; it expires
-- ARGV 1 the token that `world` must have
--      2 the token of this commit
--      3 how long the others wait at most, in milliseconds
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
