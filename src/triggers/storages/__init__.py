"""Storages of sessions. They load what a decision asks for and apply its changes, and decide nothing."""
