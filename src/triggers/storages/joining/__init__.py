"""Commits that are part of the application's own transaction, whatever the storage.

- `frameworks` finds the open transaction in what the application passes: a driver's connection, or an object
  of Django or SQLAlchemy.
- `transaction` describes such a transaction. This is all that a storage has to know of it.
- `scope` says where a manager works: in a transaction that it has joined, or in the storage directly.
- `after_commit` calls functions after the commit of a SQLAlchemy connection, which has no event for that.
"""
