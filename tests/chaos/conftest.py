"""What the tests of many machines share: a fresh place on a server, for each kind of server."""

from __future__ import annotations

import pytest

#: Kind of storage → the fixture with the URL of a fresh place on a server that all tests share.
KINDS = {"postgresql": "postgres_url", "valkey": "valkey_url"}


@pytest.fixture(params=KINDS)
def url(request):
    """The URL of an empty place on a PostgreSQL, and on a Valkey."""
    found: str = request.getfixturevalue(KINDS[request.param])
    return found
