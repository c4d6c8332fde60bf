"""DECIDE: what one firing does, as pure functions of what is known.

No clock, no dice, no disk, no thread, no log: time and names come in as arguments, and what goes out
is a description of changes that a storage applies. A linter rule keeps it so.
"""
