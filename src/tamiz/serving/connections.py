"""Connections that end: uvicorn's HTTP protocol, with a time for clients that send or read slowly, or not at all.

uvicorn waits for ever for the end of a request's head, and for a client to read its answer. Bodies are timed by
`limits.LimitBody`, connections between two requests by uvicorn's keep-alive time. The parser (llhttp) takes heads of
any size, heads that name no host or several, addresses with a fragment, any transfer coding, and as many requests at
once as a client sends ahead; here they are refused.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tamiz.serving.headers import SECURITY_HEADERS
from tamiz.serving.problems import Failure, problem_response

__all__ = ["TimedProtocol"]

TOO_LARGE = Failure(
    431, "head-too-large", "The head of the request is too large", "Shorten the address or the headers."
)
NOT_HTTP = Failure(400, "not-http", "The request is not valid HTTP", "Its first line, a header or its body is broken.")
MOST_HEAD_BYTES = 65_536
UPGRADE = re.compile(rb"(?i)(?<=\n)upgrade(?=[ \t]*:)")
MOST_AHEAD = 64  # requests that a client may send before it has read the answer to the first


class _RefusedError(Exception):
    """Ends the parsing of a head that is valid HTTP."""


class TimedProtocol(HttpToolsProtocol):
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
        self._in_message = self._in_head = False
        self._begun = 0  # requests
        self._head_bytes = 0  # of a head that came in several pieces
        self._piece_bytes = 0
        self._failure = NOT_HTTP
        self._at_work: RequestResponseCycle | None = None  # uvicorn's `cycle` is the request that came last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; a client that says nothing has the keep-alive time."""
        super().connection_made(transport)
        self._wait_for_next()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and let no timer fire."""
        self._stop_head_timer()
        self._stop_read_timer()
        self._unset_keepalive_if_required()
        self._give_up()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def _give_up(self) -> None:
        """Tell the request at work that nobody is there any more to be answered, and forget those behind it."""
        self.pipeline.clear()
        if self._at_work is not None:
            self._at_work.disconnected = True
            self._at_work.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Take what came; the first bytes of a request start its time, the end of its head stops it."""
        goes_on, alone, begun = self._in_head, not self._in_message, self._begun
        self._piece_bytes = len(data)
        if self._in_head or not self._in_message:
            data = _without_offers(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and (goes_on or (alone and self._begun == begun + 1)):  # the whole piece belongs to this head
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(TOO_LARGE)
                return
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head_timer()
        elif not self._in_message and self._begun:
            self._stop_head_timer()  # the rest of a body that was answered already has come: nothing is begun
            self._wait_for_next()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_message = self._in_head = True
        self._begun += 1
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Start to answer, unless the head is one that is refused."""
        self._in_head = False
        if self._head_bytes + self._piece_bytes > MOST_HEAD_BYTES:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MOST_HEAD_BYTES:
                self._failure = TOO_LARGE
                raise _RefusedError
        # After an offer the parser would take the body for the next request.
        if not self._is_plain() or self.parser.should_upgrade() or len(self.pipeline) >= MOST_AHEAD:
            raise _RefusedError
        super().on_headers_complete()

    def _is_plain(self) -> bool:
        """Tell whether the head names one host, no fragment, and no transfer coding that would have to be undone."""
        if b"#" in self.url:  # the parser would silently leave out what follows
            return False
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                return False
        return hosts == 1 or (hosts == 0 and self.parser.get_http_version() == "1.0")

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_message = False
        super().on_message_complete()

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
        self._refuse(self._failure)

    def _refuse(self, failure: Failure) -> None:
        now = self._at_work
        is_answering = now is not None and now.response_started and not now.response_complete
        self._give_up()
        if not is_answering:
            answer = problem_response(failure, "none")
            head = [*answer.raw_headers, *SECURITY_HEADERS.items(), (b"connection", b"close")]
            lines = [b"%b: %b\r\n" % pair for pair in head]
            self.transport.write(b"".join([STATUS_LINE[failure.status], *lines, b"\r\n", bytes(answer.body)]))
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


def _without_offers(data: bytes) -> bytes:
    """Take no notice of an offer to go on in another protocol, as by Java's client, which any server may decline.

    Args:
        data: what begins with a head or goes on with one.
    """
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    return UPGRADE.sub(b"x-offer", head) + data[len(head) :] if UPGRADE.search(head) else data
