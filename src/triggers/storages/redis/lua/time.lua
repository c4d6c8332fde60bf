#!lua flags=no-writes
-- The time of the storage.
--
-- KEYS 1 world  string: the token of the keyspace; only clocks of tests read it

return string.format('%.0f', @clock@)
