"""Firings that take part in the application's own transaction, whatever the storage."""
