"""The import of sessions that version 2 has begun.

Both versions have a package named ``triggers``, so a process cannot import both. Therefore this package reads
what version 2 has stored in its cache: ``cache`` finds the values, ``stored`` and ``pickles`` read one,
``shape`` checks it, ``translate`` makes a session of it, with the ``ledger`` of its firings, and ``importer``
stores that. Nothing else in the library reads pickles.
"""
