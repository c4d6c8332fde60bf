"""KEEP: storages of sessions. A storage loads slices and applies changes; it never decides."""
