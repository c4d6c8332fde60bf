"""The command line: looks into sessions and acts on them.

``front`` is the program and how it fails, ``options`` say where the sessions are, ``values`` are what users
write; ``look``, ``act`` and ``run`` are the commands, ``documents`` is their output for programs,
``render`` that for people.
"""

from triggers.cli.program import main

__all__ = ["main"]
