"""Runners receive the names of instances and have them run, in threads of this process or in workers."""
