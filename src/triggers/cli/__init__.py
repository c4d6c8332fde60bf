"""The command line: looks into sessions and acts on them. What each command promises stands in its help.

``front`` is the program and how it fails, ``options`` say where the sessions are, ``values`` are what users
write, ``look``, ``act`` and ``run`` are the commands, ``documents`` their output for programs and ``render`` that
for people.
"""

from triggers.cli.front import main

__all__ = ["main"]
