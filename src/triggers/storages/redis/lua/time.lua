#!lua flags=no-writes
-- The time.
--
-- KEYS 1 world  string: what the partition belongs to; only a clock of one's own looks at it

return string.format('%.0f', @clock@)
