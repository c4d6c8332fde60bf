"""The web process: it fires, and shows what became of it. It runs no tasks, and it does not sweep.

``POST /sessions/UID/TRIGGER`` with a JSON object, and ``Idempotency-Key`` if the sender may repeat itself;
``GET /sessions/UID``; ``GET /health``. A real one checks who may act on which session, and has a real server
under it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIServer, make_server

from survey import RULES, triggers

from triggers.exceptions import IdempotencyConflictError, StorageError, TriggersError, UnknownSessionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def application(request: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
    """Answer a request."""
    try:
        status, said = HTTPStatus.OK, _answer(request)
    except UnknownSessionError as error:
        status, said = HTTPStatus.NOT_FOUND, str(error)
    except IdempotencyConflictError as error:
        status, said = HTTPStatus.CONFLICT, str(error)
    except StorageError as error:  # nothing was stored: the sender is to try again, with the same key
        status, said = HTTPStatus.SERVICE_UNAVAILABLE, str(error)
    except (TriggersError, ValueError) as error:
        status, said = HTTPStatus.BAD_REQUEST, str(error)
    respond(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]


def _answer(request: WSGIEnvironment) -> Any:
    match [request["REQUEST_METHOD"], *request["PATH_INFO"].strip("/").split("/")]:
        case ["GET", "health"]:
            return {"time": triggers.storage.now()}
        case ["GET", "sessions", uid]:
            return _shown(uid)
        case ["POST", "sessions", uid, trigger]:
            body = request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
            return _fire(uid, trigger, json.loads(body or b"{}"), request.get("HTTP_IDEMPOTENCY_KEY"))
    raise UnknownSessionError("there is nothing of that name")


def _fire(uid: str, trigger: str, kwargs: dict[str, Any], key: str | None) -> Any:
    try:
        manager = triggers.existing_session(uid)
    except UnknownSessionError:
        manager = triggers.session(uid)
        manager.update_configuration(RULES)  # two processes may do so at once
    fired = manager.fire(trigger, kwargs, key=key)
    return {"number": fired.number, "duplicate": fired.duplicate}


def _shown(uid: str) -> Any:
    view = triggers.existing_session(uid).storage
    return {one.name: {"status": one.status, "result": one.result and dict(one.result)} for one in view}


class Server(ThreadingMixIn, WSGIServer):
    """One thread for each request."""

    daemon_threads = True


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    address = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
    try:
        with make_server(*address, application, server_class=Server) as server:
            server.serve_forever()
    finally:
        triggers.close()  # hints that are still here get a moment to go; the sweep finds the rest


if __name__ == "__main__":
    main()
