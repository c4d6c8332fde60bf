#!lua
-- Migrate a partition to a newer layout, unless it has that layout. A migration must change the data of the partition
-- in this script, too: older processes check `world` in every script, so they never see the new data.
--
-- KEYS 1 world  string: the token of the keyspace
-- ARGV 1 the token before
--      2 the token afterwards

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
return 'OK'
