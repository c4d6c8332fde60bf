"""The command line: inspects sessions and acts on them.

``program`` defines the program and its exit codes. ``options`` finds the application or the storage.
``values`` parses what users write. ``read``, ``draw``, ``logs``, ``check``, ``write``, ``timers``, ``run``
and ``import_v2`` define the commands.
``documents`` makes their output for programs; ``render`` and ``records`` make their output for people.
"""

from triggers.cli.program import main

__all__ = ["main"]
