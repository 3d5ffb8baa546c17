"""The outermost layer: an identifier, headers, a log line and metrics for each request, an answer to each error."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tamiz.serving.auth import CALLER
from tamiz.serving.current import CURRENT, Current
from tamiz.serving.doors.base import Doors
from tamiz.serving.headers import SECURITY_HEADERS
from tamiz.serving.limits import Gate
from tamiz.serving.metrics import Metrics
from tamiz.serving.problems import ClientGoneError, failure_of

__all__ = ["REQUEST_ID", "Observe"]

access = logging.getLogger("tamiz.access")

REQUEST_ID = "tamiz.request_id"
SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
NO_ROUTE = "(none)"
_SECURITY = list(SECURITY_HEADERS.items())
CLIENT_GONE = 499  # as web servers log it: nobody was there any more to be answered


class Observe:
    """Middleware that sees every request whole."""

    def __init__(self, app: ASGIApp, doors: Doors, metrics: Metrics, gate: Gate) -> None:
        self.app = app
        self.doors = doors
        self.metrics = metrics
        self.gate = gate
        self._prefix = secrets.token_hex(8)  # of this process; made when it starts to serve
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch over the request until it is answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun_s = time.perf_counter()
        scope[REQUEST_ID] = request_id = _given_id(scope) or f"{self._prefix}-{next(self._numbers):x}"
        CURRENT.set(Current(request_id, receive))  # never reset: a request has a task, and so a context, of its own
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_headers(message.get("headers", []), request_id)
                if self.gate.draining:  # so that the client's next request finds another server
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        self.metrics.in_flight(1)
        try:
            await self.app(scope, receive, send_with_headers)
        except ClientGoneError:
            pass
        except Exception as error:
            door = self.doors.of(scope)
            failure = failure_of(self._with_methods(error, scope))
            self.metrics.count_error(door.name, failure.slug)
            if status:  # the answer is on its way: breaking off is all that can tell the client
                raise
            await door.render(failure, request_id)(scope, receive, send_with_headers)
        finally:
            self.metrics.in_flight(-1)
            self._record(scope, status or CLIENT_GONE, time.perf_counter() - begun_s, request_id)

    def _with_methods(self, error: Exception, scope: Scope) -> Exception:
        """Name the methods that the path takes, where the request's is not one of them."""
        if isinstance(error, HTTPException) and error.status_code == 405:
            return HTTPException(405, headers={"Allow": ", ".join(self.doors.methods(scope))})
        return error

    def _record(self, scope: Scope, status: int, took_s: float, request_id: str) -> None:
        door = self.doors.of(scope).name
        self.metrics.observe(door, scope["method"], status, took_s)
        if access.isEnabledFor(logging.INFO):
            # Made by hand: `access.info` would walk the stack for the caller's name, at each request.
            record = logging.LogRecord(access.name, logging.INFO, __file__, 0, "request", None, None)
            record.fields = _log_fields(scope, door, status, took_s, request_id)
            access.handle(record)


def _log_fields(scope: Scope, door: str, status: int, took_s: float, request_id: str) -> dict[str, Any]:
    """Return what the access log keeps: the route's pattern, for a path may hold anything, and no query string."""
    caller = scope.get(CALLER)
    return {
        "request_id": request_id,
        "method": scope["method"][:16],
        "route": getattr(scope.get("route"), "path", NO_ROUTE),
        "door": door,
        "status": status,
        "took_ms": round(took_s * 1000, 2),
        "caller": caller.id if caller else None,
    }


def _given_id(scope: Scope) -> str | None:
    """Return the identifier that the client sent, if it is harmless."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SAFE_ID.fullmatch(value):
            text: str = value.decode("ascii")
            return text
    return None


def _with_headers(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    added = _SECURITY
    if not SECURITY_HEADERS.keys().isdisjoint(name for name, _ in headers):  # the answer has its own
        present = {name for name, _ in headers}
        added = [(name, value) for name, value in _SECURITY if name not in present]
    return [*headers, (b"x-request-id", request_id.encode("ascii")), *added]
