"""Connections that end: uvicorn's HTTP protocol, with a time for clients that send or read slowly, or not at all.

uvicorn waits for ever for the end of a request's head, and for a client to read its answer. Bodies are timed by
`limits.LimitBody`, connections between two requests by uvicorn's keep-alive time.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tamiz.serving.headers import SECURITY_HEADERS
from tamiz.serving.problems import Failure, problem_response

__all__ = ["TimedProtocol"]

TOO_LARGE = Failure(
    431, "head-too-large", "The head of the request is too large", "Shorten the address or the headers."
)
NOT_HTTP = Failure(400, "not-http", "The request is not valid HTTP", "Its first line, a header or its body is broken.")


class TimedProtocol(H11Protocol):
    """One connection."""

    head_timeout_s: float = 20.0
    """From a request's first byte to the end of its head; also for the rest of a body that is answered already."""
    read_period_s: float = 20.0
    read_least_bytes: int = 20_000
    """What a client must read of a waiting answer in each period."""
    close_s: float = 5.0
    """From a polite end to a rough one."""

    def __init__(self, *args: Any, **about: Any) -> None:
        super().__init__(*args, **about)
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; a client that says nothing has the keep-alive time."""
        super().connection_made(transport)
        self._wait_for_next()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and let no timer fire."""
        self._stop_head_timer()
        self._stop_read_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; the first bytes of a request start its time, the end of its head stops it."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head_timer()
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._stop_head_timer()  # the rest of a body that was answered already has come: nothing is begun
            self._wait_for_next()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def on_response_complete(self) -> None:
        """Go on with the next request, which has its own time."""
        self._stop_head_timer()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close, and soon after roughly: an answer that is not read would keep the connection open."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.close_s, self.transport.abort)

    def pause_writing(self) -> None:
        """Watch a client that does not read as fast as we write."""
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        """The client has read."""
        self._stop_read_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has too long a head, as any other failure; never within an answer."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        error = sys.exception()
        failure = TOO_LARGE if getattr(error, "error_status_hint", 400) == TOO_LARGE.status else NOT_HTTP
        answer = problem_response(failure, "none")
        head = [(name, value) for name, value in answer.raw_headers] + [*SECURITY_HEADERS.items()]
        head.append((b"connection", b"close"))
        for event in (
            h11.Response(status_code=failure.status, headers=head),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _watch_reading(self, before: int | None = None) -> None:
        """Break off unless enough has been read since the last look."""
        waiting = self.transport.get_write_buffer_size()
        if before is not None and before - waiting < min(self.read_least_bytes, before):
            self.transport.abort()
            return
        self._read_timer = self.loop.call_later(self.read_period_s, self._watch_reading, waiting)

    def _wait_for_next(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
