"""The core decides what changes in a session, with pure functions.

It imports no clock, randomness, disk, thread or log; a linter rule enforces this. Times and names are
arguments. The result is a description of changes, which a storage applies.
"""
